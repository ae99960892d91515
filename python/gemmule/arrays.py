"""From whatever a user hands over to checked, C-contiguous arrays of the network's type; and new ones."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DTypeError, ShapeError

Array = NDArray[Any]
Shape = tuple[int, ...]

_LINE = 64  # bytes
_LARGE = 1 << 16  # bytes, from which on the microsecond that an address takes is nothing

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("float32", "float64")}


def empty(shape: Shape, dtype: str | np.dtype[Any]) -> Array:
    """As np.empty, but large arrays begin with a cache line. NumPy's begin 16 bytes into one, and half of
    their vectors of 32 bytes, or all of 64, lie across two: a depthwise convolution takes 1.4 times as long,
    one of 1 x 1 1.1 times."""
    dtype = _DTYPES[dtype] if isinstance(dtype, str) else dtype
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        return np.empty(shape, dtype)
    memory = np.empty(size + _LINE, np.uint8)
    begin = -memory.ctypes.data % _LINE
    return memory[begin : begin + size].view(dtype).reshape(shape)


def unknown_name(what: str, name: object, known: tuple[str, ...]) -> ValueError:
    """The error for a name that is not on the list; it shows the list."""
    return ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def float_dtype(dtype: Any) -> str:
    """ "float32" or "float64", from any spelling NumPy takes."""
    try:
        name = "" if dtype is None else str(np.dtype(dtype).name)  # to NumPy, None is float64
    except TypeError:
        name = ""
    if name not in ("float32", "float64"):
        raise DTypeError(f"dtype {dtype!r}: gemmule computes in 'float32' or 'float64'")
    return name


def real_number(value: Any, what: str) -> float:
    """`value` as a float, NaN and infinities included; TypeError where it is no real number, ValueError where
    it is beyond float64."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{what} is beyond the range of float64") from error


def not_negative(value: Any, what: str) -> float:
    """`value` as a finite float of at least 0; TypeError and ValueError name the argument."""
    number = real_number(value, what)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{what} is {value}; it must be finite and not negative")
    return number


def positive(value: Any, what: str) -> float:
    """`value` as a finite float above 0; TypeError and ValueError name the argument."""
    number = real_number(value, what)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} is {value}; it must be finite and above 0")
    return number


def fraction(value: Any, what: str) -> float:
    """`value` as a float of at least 0 and below 1; TypeError and ValueError name the argument."""
    number = real_number(value, what)
    if not 0 <= number < 1:
        raise ValueError(f"{what} is {value}; it must be at least 0 and below 1")
    return number


def is_table(value: Any) -> bool:
    """Whether `value` has columns with names: a data frame, a mapping, a structured array."""
    if isinstance(value, np.ndarray):
        return value.dtype.names is not None and value.ndim == 1
    kind = type(value)
    # Of the class, since a lazy frame warns of the cost where its own columns are asked for.
    return isinstance(value, Mapping) or (hasattr(kind, "columns") and hasattr(kind, "__getitem__"))


def as_array(value: Any, what: str) -> Array:
    """`value` as a base-class ndarray of any type, uncopied where it is one.

    Takes anything NumPy takes, and what has `__array__` or `__dlpack__`. ShapeError for ragged lists."""
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{what}: not a rectangular array ({error})") from error


def any_array(value: Any, what: str) -> Array:
    """`value` as a base-class ndarray of real numbers, uncopied where it is one.

    Takes and refuses what `as_array` does; DTypeError for object, complex, string and the like."""
    array = as_array(value, what)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"{what} has dtype {array.dtype}; gemmule takes real numbers")
    return array


def is_plain(value: Any, dtype: str) -> bool:
    """Whether `value` is an array as the kernels read it: of `dtype` "float32" or "float64", of NumPy's own
    class, C-contiguous and aligned."""
    return type(value) is np.ndarray and value.dtype is _DTYPES[dtype] and value.flags.carray


def real_array(value: ArrayLike, dtype: str, what: str) -> Array:
    """`value` as a C-contiguous, aligned array of `dtype`: itself where it already is, else a copy.

    DTypeError as `any_array`; ValueError where a finite value is beyond the range of `dtype`."""
    wanted = _DTYPES[dtype]
    if is_plain(value, dtype):
        plain: Array = value  # type: ignore[assignment]
        return plain
    array = any_array(value, what)
    if array.dtype == wanted:
        return np.require(array, requirements=("C", "A"))
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)
    if wanted.itemsize < array.dtype.itemsize and array.dtype.kind == "f":
        lost = np.isinf(converted) & np.isfinite(array)
        if lost.any():
            at = tuple(int(i) for i in np.argwhere(lost)[0])
            hint = "; use dtype='float64'" if dtype == "float32" else ""
            raise ValueError(f"{what}: {array[at]!s} at {at} overflows {dtype}{hint}")
    return converted


def shown(shape: Shape) -> str:
    """A batch's shape, for messages."""
    return f"(N, {', '.join(map(str, shape))})"


def overlaps(out: Array, *inputs: Array | None) -> bool:
    """Whether writing `out` might change an input before it is read."""
    return any(array is not None and np.may_share_memory(out, array) for array in inputs)
