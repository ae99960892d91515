"""Data larger than memory: a file on disk, a class that makes rows when they are asked for, a generator."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gemmule as gm

ROWS, SIDE = 20_000, 16
folder = Path(tempfile.mkdtemp())


def images(begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Bars in grey noise: upright (label 1) or lying (0). The same rows always look the same."""
    rng = np.random.default_rng(begin)
    labels = rng.integers(0, 2, end - begin)
    X = rng.integers(0, 100, (end - begin, SIDE, SIDE)).astype(np.uint8)
    for image, label, place in zip(X, labels, rng.integers(0, SIDE, end - begin), strict=True):
        (image[:, place] if label else image[place])[:] += 120
    return X, labels


def network() -> gm.Network:
    return gm.Network([gm.Flatten(), gm.Dense(SIDE**2, 32, "relu"), gm.Dense(32, 2)], rng=0)


# A file, written in pieces and mapped: bytes are read where they lie, and scaled as batches are gathered.
X = np.lib.format.open_memmap(folder / "X.npy", mode="w+", dtype=np.uint8, shape=(ROWS, SIDE, SIDE))
y = np.empty(ROWS, np.int64)
for begin in range(0, ROWS, 1000):
    X[begin : begin + 1000], y[begin : begin + 1000] = images(begin, begin + 1000)
X.flush()
X = np.load(folder / "X.npy", mmap_mode="r")

net = network()
net.fit(X, y, loss="cross_entropy", epochs=2, batch_size=64, scale=1 / 255, metrics=["accuracy"])
print("a mapped file:", net.evaluate(X[:2000], y[:2000]))


# Whatever has a length and gives rows for slices; HDF5 and Zarr do. Read in blocks by a thread, shuffled so.
class Bars:
    def __init__(self, part: int) -> None:
        self.part = part  # 0 for images, 1 for labels

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last = rows.start // 1000, -(-rows.stop // 1000)
        whole = np.concatenate([images(k * 1000, k * 1000 + 1000)[self.part] for k in range(first, last)])
        return whole[rows.start - first * 1000 : rows.stop - first * 1000]


net = network()
net.fit(Bars(0), Bars(1), loss="cross_entropy", epochs=1, batch_size=64, scale=1 / 255)
print("rows on demand:", net.evaluate(X[:2000], y[:2000]))


# Batches from a generator: another order in every epoch, two batches to an update.
def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for begin in np.random.default_rng(epoch).permutation(ROWS // 50) * 50:
        yield X[begin : begin + 50], y[begin : begin + 50]


net = network()
history = net.fit(
    batches, loss="cross_entropy", epochs=2, scale=1 / 255, accumulate=2, validation_data=(X[:2000], y[:2000])
)
print("a generator:", history["val_loss"])
assert net.evaluate(X[:2000], y[:2000])["accuracy"] > 0.95
