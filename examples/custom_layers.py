"""An activation and a layer of one's own: a pair of functions of z, and a class with forward and backward."""

import numpy as np

import gemmule as gm


def scaled_tanh(z):
    return 2 * np.tanh(z)


def scaled_tanh_derivative(z):
    return 2 * (1 - np.tanh(z) ** 2)


class Gain(gm.Layer):
    """y = gain * x, one trainable gain per column."""

    def build(self, input_shape):
        self.add_parameter("gain", input_shape, np.ones(input_shape))

    def forward(self, x):
        self.x = x
        return x * self.gain

    def backward(self, dy):
        self.gain.grad += (dy * self.x).sum(axis=0)
        return dy * self.gain


rng = np.random.default_rng(0)
X = rng.normal(size=(200, 2)).astype(np.float32)
y = 0.5 * X[:, 0] ** 2 + 1.5 * X[:, 1] + 2

net = gm.Network([gm.Dense(2, 10, (scaled_tanh, scaled_tanh_derivative)), Gain(), gm.Dense(10, 1)], rng=0)
history = net.fit(X, y, loss="mse", optimizer=gm.SGD(0.02), epochs=200, batch_size=32)
print(f"loss {history['loss'][0]:.4f} at first, {history['loss'][-1]:.4f} at last")
print("gains:", np.round(net[1].gain, 3))

# Is the layer's backward right? Compare one derivative with a central difference, in float64.
net = gm.Network([Gain(), gm.Dense(2, 1)], input_shape=(2,), dtype="float64", rng=0)
wanted = y[:, None].astype(np.float64)
net.zero_grad()
net.backward(gm.losses.mse(net.forward(X), wanted)[1])
step = 1e-6
losses = []
for shift in (step, -step):
    net[0].gain[0] = 1 + shift  # a parameter is written in place
    losses.append(gm.losses.mse(net.forward(X), wanted)[0])
difference = (losses[0] - losses[1]) / (2 * step)
print(f"dL/dgain: {net[0].gain.grad[0]:.6f} by backward, {difference:.6f} by difference")
assert np.isclose(difference, net[0].gain.grad[0], rtol=1e-5)
