"""Data from files: a .npz archive, and the command line on it. The last lines tell of MNIST."""

import tempfile

import numpy as np

import gemmule as gm
from gemmule.cli import main

rng = np.random.default_rng(0)
centres = {"north": (0.0, 2.0), "east": (2.0, 0.0), "south": (0.0, -2.0)}
y = rng.choice(list(centres), size=300)
X = np.array([centres[name] for name in y]) + 0.5 * rng.normal(size=(300, 2))

with tempfile.TemporaryDirectory() as folder:
    data, model = f"{folder}/points.npz", f"{folder}/points.safetensors"
    np.savez(data, X=X, y=y)

    # As one would type it: gemmule train points.npz --hidden 16 --out points.safetensors
    assert main(["train", data, "--hidden", "16", "--epochs", "20", "--out", model]) == 0
    assert main(["evaluate", model, data]) == 0
    assert main(["predict", model, data, "--limit", "3", "--proba"]) == 0

    # The same in Python: labels become 0, 1, 2; the file read back is what was written.
    X, names = gm.datasets.load_npz(data)
    classes, labels = np.unique(names, return_inverse=True)
    net = gm.Network.mlp([2, 16, len(classes)], activation="tanh", rng=0)
    net.fit(X, labels, loss="cross_entropy", optimizer=gm.Adam(1e-2), epochs=20, validation_split=0.2)
    print("an arrow at (2, 0.1) points", classes[net.predict(np.array([2, 0.1])).argmax()])

# MNIST: put its four files, as downloaded, into a folder, and
#     (X_train, y_train), (X_test, y_test) = gm.datasets.mnist(folder)
# or on the command line
#     gemmule train mnist --data-dir FOLDER
