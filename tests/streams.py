"""Data for tests of streams: a sliceable store of our own, and small blocks."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from helpers import Array

import gemmule as gm

SAMPLES, FEATURES, CLASSES = 500, 20, 5


class Store:
    """Sliceable, with a length, and nothing else."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.read: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: slice) -> Array:
        self.read.append((rows.start, rows.stop))
        return self._array[rows]


def data(dtype: str = "float32") -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, FEATURES)).astype(dtype)
    return x, rng.integers(0, CLASSES, SAMPLES)


def in_batches(x: Array, y: Array, size: int = 32) -> Callable[[], Iterator[tuple[Array, Array]]]:
    """A function that gives them, the last one smaller."""
    return lambda: ((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))


def make_net(dtype: str = "float32") -> gm.Network:
    layers = [gm.Dense(FEATURES, 33, "relu"), gm.Dropout(0.2), gm.Dense(33, CLASSES)]
    return gm.Network(layers, rng=1, dtype=dtype)


def fit(net: gm.Network, x: Any, y: Any = None, **options: Any) -> gm.History:
    options = {"loss": "cross_entropy", "optimizer": gm.Adam(1e-2), "epochs": 3, **options}
    return net.fit(x, y, **options)


def threads_left() -> list[str]:
    """Prefetching threads that live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gemmule")]
