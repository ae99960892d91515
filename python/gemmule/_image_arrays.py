"""Images as the functions of `gemmule.ops` take and make them: channels-last inside, any layout outside."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._layout import batch_to_first, batch_to_last
from ._operands import require_out, require_shape
from .arrays import Array, Shape, empty, overlaps, real_array
from .errors import ShapeError


def images_of(op: str, name: str, array: Array, first: bool, shape: Shape | None = None) -> Array:
    """`array` channels-last and C-contiguous; ShapeError where it is no images, or not those of `shape`."""
    if shape is not None:
        require_shape(op, name, array, turned_shape(shape, first))
    if array.ndim != 4 or 0 in array.shape[1:]:
        axes = "(N, C, H, W)" if first else "(N, H, W, C)"
        raise ShapeError(f"{op}: {name} has shape {array.shape}; it must be {axes}, with pixels and channels")
    return real_array(batch_to_last(array) if first else array, array.dtype.name, op)


def turned_shape(shape: Shape, first: bool) -> Shape:
    return (shape[0], shape[3], *shape[1:3]) if first else shape


def image_shape(op: str, shape: Any, first: bool) -> Shape:
    """x's shape, channels-last."""
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    integers = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in sizes)
    if len(sizes) != 4 or not integers:
        raise TypeError(f"{op}: shape must be the four sizes of x, not {shape!r}")
    if sizes[0] < 0 or min(sizes[1:]) < 1 or math.prod(map(int, sizes)) * 8 >= 2**63:
        raise ShapeError(f"{op}: shape {shape} is that of no images in 64 bits")
    count, a, b, c = map(int, sizes)
    return (count, b, c, a) if first else (count, a, b, c)


def filled(
    op: str,
    out: Array | None,
    shape: Shape,
    dtype: np.dtype[Any],
    first: bool,
    compute: Callable[[Array], None],
    *inputs: Array,
) -> Array:
    """`compute` into `out` or a new array, of a channels-last `shape`; through a temporary where `out`
    overlaps an input or does not lie as kernels write."""
    if out is not None:
        require_out(op, out, turned_shape(shape, first), dtype)
        target = batch_to_last(out) if first else out
        if target.flags.carray and not overlaps(out, *inputs):
            if target.size:
                compute(target)
            return out
    result = empty(shape, dtype)
    if result.size:
        compute(result)
    turned = batch_to_first(result) if first else result
    if out is None:
        return turned
    out[...] = turned
    return out
