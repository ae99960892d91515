"""What the functions of `gemmule.ops` share: their operands in one type, their results in `out`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import activations
from .arrays import Array, Shape, any_array, empty, overlaps, real_array
from .errors import DTypeError, ShapeError

# What kernels compute in, by identity: NumPy keeps one object of each.
KERNEL_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def builtin(kind: str, slope: float | None) -> activations.Builtin:
    act = activations.resolve(kind, slope, activations.ELEMENTWISE)
    if not isinstance(act, activations.Builtin):
        raise TypeError(f"activation must be a name ({', '.join(activations.ELEMENTWISE)}), not {kind!r}")
    return act


def common(op: str, **values: ArrayLike) -> list[Array]:
    """The arrays in one type, float32 where all are; strides are left as they are where no conversion is
    due."""
    arrays = [any_array(value, f"{op}: {name}") for name, value in values.items()]
    # Of another byte order, only the name is float32's; making that takes NumPy 2 us.
    single = all(array.dtype is KERNEL_TYPES[0] or array.dtype.name == "float32" for array in arrays)
    dtype = np.dtype("float32" if single else "float64")
    return [
        array if array.dtype == dtype and array.flags.aligned else array.astype(dtype) for array in arrays
    ]


def contiguous(op: str, **values: ArrayLike) -> list[Array]:
    return [real_array(array, array.dtype.name, op) for array in common(op, **values)]


def require_shape(op: str, name: str, array: Array, shape: Shape) -> None:
    if array.shape != shape:
        raise ShapeError(f"{op}: {name} has shape {array.shape}, not {shape}")


def require_position(op: str, step: Any, layer: Any) -> None:
    """Where in a random stream draws stand; ValueError for anything but integers that counters hold."""
    for name, position, end in (("step", step, 2**63), ("layer", layer, 2**31)):
        if not isinstance(position, int | np.integer) or not 0 <= position < end:
            raise ValueError(f"{op}: {name} is {position!r}; it must be an integer, not negative")


def require_out(op: str, out: Any, shape: Shape, dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise DTypeError(
            f"{op}: out must be an array of {dtype}, not {getattr(out, 'dtype', type(out).__name__)}"
        )
    require_shape(op, "out", out, shape)
    if not out.flags.writeable:
        raise ValueError(f"{op}: out is read-only")


def into(op: str, out: Array | None, like: Array, compute: Callable[[Array], None], *inputs: Array) -> Array:
    """`compute` into `out`, or a new array, of the shape and type of `like`; through a temporary where `out`
    overlaps an input or does not lie as kernels write."""
    if out is None:
        result = empty(like.shape, like.dtype)
        compute(result)
        return result
    require_out(op, out, like.shape, like.dtype)
    if out.flags.carray and not overlaps(out, *inputs):
        compute(out)
    else:
        result = empty(like.shape, like.dtype)
        compute(result)
        out[...] = result
    return out
