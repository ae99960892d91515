"""Data that come in blocks: what a stream can be made of, and how its samples are checked and ordered.

A store is sliceable: `len(store)` rows, `store[i:j]` an array of some. A stream of batches is an iterable of
(X, y), or a function that returns one."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._layout import batch_entering, batch_to_last, outside
from ._targets import target_array
from .arrays import Array, any_array, as_array, is_table, real_array, shown
from .errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from .network import Network

BLOCK = 32 << 20  # bytes of X read at a time: long reads, and two such blocks are little memory
PIECES = 16  # a block is made of as many stretches from different places


_IN_MEMORY = (np.ndarray, list, tuple, str, bytes, Mapping)


def is_store(value: Any) -> bool:
    """Whether `value` is sliceable, but no array in memory and no sequence of numbers."""
    if isinstance(value, _IN_MEMORY) or is_table(value):
        return False
    kind = type(value)
    if not hasattr(kind, "__getitem__") or hasattr(kind, "__dlpack__"):
        return False
    if not hasattr(kind, "__len__") and not hasattr(value, "shape"):  # Zarr's arrays have a shape alone
        return False
    # HDF5, Zarr and Dask would read all of themselves into an array; others with __array__ are arrays.
    return not hasattr(kind, "__array__") or (hasattr(value, "chunks") and hasattr(value, "shape"))


def length(value: Any) -> int:
    """The rows of a store or an array."""
    return len(value) if hasattr(type(value), "__len__") else int(value.shape[0])


def is_mapped(value: Any) -> bool:
    """Whether an array lies in a memory-mapped file."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    if value is None:
        return False
    import mmap  # here: few arrays get this far

    return isinstance(value, mmap.mmap)


def must_stream(value: Any, dtype: str, layout: str) -> bool:
    """Whether to take it whole would copy what may be larger than memory."""
    if type(value) is np.ndarray and value.base is None:  # nearly always
        return False
    if not is_mapped(value):
        return is_store(value)
    array = np.asarray(value)
    array = batch_to_last(array) if layout == "channels_first" else array
    in_place = array.dtype in (np.dtype(dtype), np.uint8) and array.flags.c_contiguous and array.flags.aligned
    return not in_place and value.size * np.dtype(dtype).itemsize > BLOCK


class Order(NamedTuple):
    """The rows of one block: stretches of the store, one after the other, and in which order they are
    trained on; None: as they are."""

    stretches: list[tuple[int, int]]
    rows: Array | None


def blocks_of(
    samples: int, block: int, piece: int, generator: Callable[[int], "np.random.Generator"] | None
) -> Iterator[Order]:
    """Each of `samples` rows once, in blocks of `block`.

    With a generator (of the order of all stretches by 0, of the rows of block i by i + 1) the store is cut
    into stretches of `piece` rows, taken in a random order, and the rows of a block are shuffled."""
    count = -(-samples // piece)
    order = np.arange(count) if generator is None else generator(0).permutation(count)
    stretches: list[tuple[int, int]] = []
    room, number = block, 0

    def complete() -> Order:
        nonlocal number
        number += 1
        stretches.sort()  # a disk is read in one direction
        rows = sum(end - begin for begin, end in stretches)
        return Order(stretches, None if generator is None else generator(number).permutation(rows))

    for i in order.tolist():
        begin, end = i * piece, min((i + 1) * piece, samples)
        while begin < end:
            taken = min(room, end - begin)
            stretches.append((begin, begin + taken))
            begin += taken
            room -= taken
            if room == 0:
                yield complete()
                stretches, room = [], block
    if stretches:
        yield complete()


def block_sizes(store: Any, update: int, row: int | None = None) -> tuple[int, int]:
    """(rows of a block, rows of a stretch) for samples of `row` bytes, by default as they are stored: whole
    updates of `update` samples, and whole chunks of the file."""
    samples = length(store)
    if row is None:
        row = as_array(store[0:1], "rows 0 to 0").nbytes
    block = min(-(-max(1, BLOCK // max(row, 1)) // update), -(-samples // update)) * update
    chunks = getattr(store, "chunks", None)
    whole = chunks[0] if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) else 1
    return block, -(-max(1, block // PIECES) // whole) * whole


class Checks:
    """Turns pieces of X and y into what the kernels take; built from the first of them, which says whether X
    is of bytes."""

    def __init__(self, network: "Network", x: Array, kind: str) -> None:
        self.bytes = x.dtype == np.uint8
        self.dtype = "uint8" if self.bytes else network.dtype
        self.input_shape = network.built_input_shape  # channels-last, as what `inputs` returns
        self._network, self._kind = network, kind

    def inputs(self, X: Any, where: str) -> Array:
        """ShapeError and DTypeError where X is not as the first was."""
        x = any_array(X, f"{where}X")
        due = outside(self._network, self.input_shape)
        if x.shape[1:] != due or x.ndim == 0:
            raise ShapeError(f"{where}X has shape {x.shape}; the network takes {shown(due)}")
        if (x.dtype == np.uint8) != self.bytes:
            first = "uint8" if self.bytes else "not uint8"
            raise DTypeError(f"{where}X is {x.dtype}; the first samples were {first}")
        x = batch_entering(self._network, x, f"{where}X")
        return x if self.bytes else real_array(x, self._network.dtype, f"{where}X")

    def targets(self, y: Any, rows: int, where: str) -> Array:
        """int64 labels or real targets of `rows` samples."""
        what, shape = f"{where}y", (rows, *self._network.output_dims)
        y = batch_entering(self._network, y, what)
        return target_array(self._kind, y, shape, self._network.dtype, what)


def pair_of(batch: Any, where: str) -> tuple[Any, Any]:
    """X and y of a batch; TypeError where it is something else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"{where}a pair (X, y) is due, not {type(batch).__name__}")
    return batch[0], batch[1]


class Passes:
    """Iterables of batches, one after the other: of the same object, or what a function returns.

    A function that has an argument `epoch` is given the number of the epoch, from 0."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._takes_epoch = False
        if callable(given) and not isinstance(given, Iterable):
            with contextlib.suppress(TypeError, ValueError):  # of what has no signature
                self._takes_epoch = "epoch" in inspect.signature(given).parameters
        elif not isinstance(given, Iterable):
            raise TypeError(
                f"X is {type(given).__name__}; without y it must be an iterable of batches (X, y), or a "
                "function that returns one"
            )
        self.once = isinstance(given, Iterator)

    @property
    def length(self) -> int | None:
        """Batches of a pass, where that is known beforehand."""
        return len(self._given) if hasattr(type(self._given), "__len__") else None

    def begin(self, epoch: int) -> Iterator[Any]:
        """TypeError where a function does not return an iterable."""
        made = self._given
        if not isinstance(made, Iterable):
            made = made(epoch=epoch) if self._takes_epoch else made()
            if not isinstance(made, Iterable):
                raise TypeError(f"X returned {type(made).__name__}, not an iterable of batches (X, y)")
        return iter(made)
