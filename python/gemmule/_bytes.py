"""Features of one byte: kept as they are, and scaled where they are used.

A network that was trained with `fit(X, scale=s)` remembers s in `preprocessing["uint8_scale"]`. From then on
it sees s times every uint8 array that it is given; arrays of other types are taken as they are."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from .arrays import Array, empty, real_number

if TYPE_CHECKING:
    from .network import Network

KEY = "uint8_scale"
_BYTE = np.dtype(np.uint8)
_CHUNK = 1 << 22  # bytes of a network's type made at a time: they stay in the caches
_FEWEST = 32  # rows, however long: as many as predict takes of large images


def is_bytes(array: Any) -> bool:
    """Whether it is an array of uint8."""
    return isinstance(array, np.ndarray) and array.dtype == _BYTE


def checked_scale(scale: Any, what: str) -> float:
    """`scale` as a float; TypeError and ValueError name the argument."""
    number = real_number(scale, what)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} is {scale}; it must be finite and above 0")
    return number


def scale_of(network: "Network") -> float:
    """By what the network multiplies bytes; 1 where nothing was said."""
    return checked_scale(network.preprocessing.get(KEY, 1.0), f"preprocessing[{KEY!r}]")


def to_reals(x: Array, scale: float, dtype: str) -> Array:
    """scale x as an array of `dtype`, x uint8."""
    out = empty(x.shape, dtype)
    _core.scale_bytes(np.ascontiguousarray(x).reshape(x.shape), scale, out)
    return out


def chunks(x: Array, scale: float, dtype: str, multiple: int) -> Iterator[tuple[slice, Array]]:
    """x in pieces of some MB of `dtype`, of a multiple of `multiple` rows, but for the last; where rows are
    long of half as many, or half of that and so on. All in the same memory."""
    row = max(1, math.prod(x.shape[1:]) * np.dtype(dtype).itemsize)
    most = max(_CHUNK // row, _FEWEST)
    while multiple > most:
        multiple //= 2
    rows = most // multiple * multiple
    out = empty((min(rows, len(x)), *x.shape[1:]), dtype)
    for begin in range(0, len(x), rows):
        part = slice(begin, min(begin + rows, len(x)))
        piece = out[: part.stop - begin]
        _core.scale_bytes(x[part], scale, piece)
        yield part, piece
