"""A two-layer network fitted to y = 0.5 x0^2 + 1.5 x1 + 2, one step of gradient descent at a time.

z1 = W1 x + b1, h1 = relu(z1), y = W2 h1 + b2: forward, loss, backward and update are written out, and each
quantity can be looked at.
"""

import numpy as np

import gemmule as gm

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 2)).astype(np.float32)
y = (0.5 * X[:, 0] ** 2 + 1.5 * X[:, 1] + 2 + 0.1 * rng.normal(size=200)).astype(np.float32)[:, None]

net = gm.Network([gm.Dense(2, 10, "relu"), gm.Dense(10, 1)], rng=0)
for name, parameter in net.named_parameters():
    print(f"{name:10} {parameter.shape}")

optimizer = gm.SGD(0.05)
for epoch in range(1, 301):
    prediction = net.forward(X, training=True)
    loss, gradient = gm.losses.mse(prediction, y)  # mean (p - y)^2, and 2 (p - y) / N
    net.zero_grad()
    net.backward(gradient)  # adds to every parameter's .grad
    optimizer.step(net)  # W -= 0.05 dL/dW
    if epoch in (1, 10, 100, 200, 300):
        slope = np.linalg.norm(net[0].weight.grad)
        print(f"epoch {epoch:3}: loss {loss:.4f}, gradient of W1 {slope:.4f}")

# The forward pass of one sample by hand: the matrices are NumPy arrays.
x = X[0]
h1 = np.maximum(net[0].weight @ x + net[0].bias, 0)
by_hand = net[1].weight @ h1 + net[1].bias
print(f"by hand {by_hand[0]:.5f}, by the network {net.predict(x)[0]:.5f}, wanted {y[0, 0]:.5f}")
np.testing.assert_allclose(by_hand, net.predict(x), rtol=1e-4)

# Every intermediate quantity of a batch, by name.
for name, value in net.trace(X[:4]).items():
    print(f"{name:5} {value.shape}")
