"""Train a small convolutional network on handwritten digits, and look at what its first layer does."""

import numpy as np

import gemmule as gm

X, y = gm.datasets.digits(as_images=True)  # (1797, 8, 8, 1) pixels in 0..1, and labels
X_train, X_test, y_train, y_test = gm.datasets.split(X, y, 0.2, rng=0)

net = gm.Network(
    [
        gm.Conv2d(1, 16, 3, "relu", padding="same"),
        gm.Conv2d(16, 32, 3, "relu"),
        gm.MaxPool2d(2),
        gm.Flatten(),
        gm.Dense(None, 64, "relu"),
        gm.Dropout(0.25),
        gm.Dense(64, 10),
    ],
    input_shape=(8, 8, 1),
    rng=0,
)
print(net.summary())
net.fit(X_train, y_train, loss="cross_entropy", optimizer=gm.Adam(2e-3), epochs=12, batch_size=32)
print(f"held-out accuracy {net.evaluate(X_test, y_test)['accuracy']:.1%}")

# The same layer as a function: each filter slides over the image.
first = net[0]
maps = gm.ops.conv2d(X_test[:1], first.weight, first.bias, padding="same", activation="relu")
assert np.allclose(maps, net.trace(X_test[:1])["0.h"], atol=1e-6)
print(f"{maps.shape[3]} maps of {maps.shape[1]} x {maps.shape[2]} pixels; the strongest are of")
strongest = maps[0].max(axis=(0, 1)).argsort()[::-1][:2]
for number in strongest:
    print(f"filter {number}:\n{np.round(first.weight[number, :, :, 0], 2)}")

# Where images come as (N, C, H, W), say so; the weights are the same.
turned = gm.Network(net.layers, input_shape=(1, 8, 8), layout="channels_first")
assert (turned.predict(np.moveaxis(X_test, 3, 1)) == net.predict(X_test)).all()
