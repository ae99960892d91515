"""Batches for hand-written loops."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import _sources
from .arrays import Array, any_array, as_array, is_table
from .errors import ShapeError
from .layers.base import positive_int


class Batches:
    """The batches of a data set, in NumPy arrays; an epoch each time it is iterated over.

        for epoch in range(10):
            for Xb, yb in batches: ...

    `len(batches)` is the number of batches. See `gemmule.batches`."""

    def __init__(self, X: Any, y: Any, batch_size: int, shuffle: bool, rng: Any, drop_last: bool) -> None:
        self._parts = [_sliceable(X, "X")] if y is None else [_sliceable(X, "X"), _sliceable(y, "y")]
        self._paired = y is not None
        self._samples = _sources.length(self._parts[0])
        if self._samples == 0:
            raise ShapeError("batches: X holds no samples")
        others = _sources.length(self._parts[-1])
        if others != self._samples:
            raise ShapeError(f"batches: X has {self._samples} samples, y {others}")
        self._size = positive_int(batch_size, "batches: batch_size")
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(flag, bool | np.bool_):
                raise TypeError(f"batches: {name} must be True or False, not {flag!r}")
        self._shuffle, self._drop_last = shuffle, drop_last
        self._rng = np.random.default_rng(rng)

    def __len__(self) -> int:
        whole, rest = divmod(self._samples, self._size)
        return whole + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[Any]:
        count = len(self)
        for begin, parts in self._pieces():
            for at in range(0, len(parts[0]), self._size):
                if (begin + at) // self._size < count:
                    batch = tuple(part[at : at + self._size] for part in parts)
                    yield batch if self._paired else batch[0]

    def _pieces(self) -> Iterator[tuple[int, list[Array]]]:
        """Whole batches at a time: all samples where they lie in memory, else a block, read in one go."""
        if all(isinstance(part, np.ndarray) for part in self._parts):
            if not self._shuffle:
                yield 0, self._parts
                return
            rows = self._rng.permutation(self._samples)
            for begin in range(0, self._samples, self._size):
                yield begin, [part[rows[begin : begin + self._size]] for part in self._parts]
            return
        block, piece = _sources.block_sizes(self._parts[0], self._size)
        begin = 0
        draw = (lambda _: self._rng) if self._shuffle else None
        for stretches, order in _sources.blocks_of(self._samples, block, piece, draw):
            parts = [_read(part, stretches) for part in self._parts]
            yield begin, parts if order is None else [part[order] for part in parts]
            begin += len(parts[0])


def batches(
    X: Any,
    y: Any = None,
    batch_size: int = 32,
    *,
    shuffle: bool = True,
    rng: Any = None,
    drop_last: bool = False,
) -> Batches:
    """The batches (X, y) of a data set, X alone where y is None, as NumPy arrays of the data's own types.

        for Xb, yb in gm.batches(X, y, 64, rng=0):
            loss, dz = gm.losses.cross_entropy(net.forward(Xb, training=True), yb)
            net.zero_grad()
            net.backward(dz)
            optimizer.step(net)

    X, y: arrays, or whatever has `len` and gives arrays for slices: memory-mapped files, HDF5, Zarr.
    shuffle: a new order for each epoch. Arrays are shuffled as a whole, others in blocks: stretches of
        consecutive rows are read in a random order, about 32 MB of them at a time, and their rows shuffled.
    rng: int, `numpy.random.Generator` or None: with an int the orders are the same in every run.
    drop_last: leave out a last batch that is smaller.

    ShapeError where X is empty, or y has another length."""
    return Batches(X, y, batch_size, shuffle, rng, drop_last)


def _sliceable(value: Any, what: str) -> Any:
    if is_table(value):
        raise TypeError(f"batches: {what} is a table; gm.tables.TableEncoder makes an array of it")
    if _sources.is_store(value) or (isinstance(value, np.ndarray) and not _sources.is_mapped(value)):
        return value
    return value if _sources.is_mapped(value) else any_array(value, what)


def _read(part: Any, stretches: list[tuple[int, int]]) -> Array:
    return np.concatenate(
        [as_array(part[begin:end], f"rows {begin} to {end - 1}") for begin, end in stretches]
    )
