"""`matmul`: the compiled product under the rules of NumPy's."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, _packed
from .arrays import Array, Shape, as_array
from .errors import DTypeError, ShapeError
from .parameters import Parameter

_KERNEL_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
# What is read and written as a plain array. Other subclasses say through NumPy what becomes of them.
_PLAIN = (np.ndarray, np.memmap, Parameter)


def matmul(
    a: ArrayLike,
    b: ArrayLike | _packed.PackedMatrix,
    out: Array | tuple[Array] | None = None,
    **keywords: Any,
) -> Any:
    """The matrix product a b, with the semantics of `numpy.matmul`.

    a (..., M, K), b (..., K, N) or a PackedMatrix (K, N) -> (..., M, N), leading axes broadcast against each
    other. A vector a (K,) is a row and a vector b (K,) a column, whose axis is left out of the result; two
    vectors give a scalar. `out` receives the result and is returned; it has the result's shape, or one that
    the stack broadcasts to, any layout, and may overlap an input.

    float32 and float64 are multiplied by the kernels of `gemm`, in the wider type where they meet, as are
    integers and float16 beside them where NumPy's promotion gives one of the two. The products of a stack are
    divided over the threads; a stack times one matrix is one product where the rows of the stack lie evenly
    apart. NumPy itself multiplies other types (integers, bool, float16, longdouble, complex, object), array
    subclasses and objects with `__array_ufunc__`, and takes its own keywords (`casting`, `order`, `dtype`,
    `subok`, `signature`, `axes`, `axis`).

    ShapeError where a or b is a single number, the inner dimensions differ, the stacks do not broadcast, the
    result's size overflows or `out` does not fit; DTypeError where the result's type does not cast to that of
    `out` within its kind; ValueError where `out` is read-only. Nothing is written then.

    Source: the gufunc (n?,k),(k,m?)->(n?,m?) of PEP 465 and NumPy."""
    if isinstance(out, tuple) and len(out) == 1:
        (out,) = out
    if not keywords and type(a) is type(b) is np.ndarray and (out is None or type(out) is np.ndarray):
        product = _core.matmul(a, b, out)  # nearly always: small ones must be quick
        if product is not None:
            return product
    if isinstance(b, _packed.PackedMatrix):
        if keywords:
            raise TypeError(f"matmul: {', '.join(keywords)}: not with a PackedMatrix")
        return _packed.matmul(a, b, out)
    if out is not None:
        keywords["out"] = out
    if keywords.keys() - {"out"} or any(map(_has_own_rules, (a, b, out))):
        return np.matmul(a, b, **keywords)
    left, right = as_array(a, "matmul: a"), as_array(b, "matmul: b")
    stack = _stack(left, right)
    dtype = np.result_type(left, right)
    if dtype not in _KERNEL_TYPES:
        return np.matmul(left, right, **keywords)
    left, right = left.astype(dtype, copy=False), right.astype(dtype, copy=False)
    core = left.shape[-2:-1] + right.shape[-1:] * (right.ndim > 1)
    if out is None:
        result = _empty(stack + core, dtype, left, right)
        _multiply(left, right, result)
        return result if result.ndim else result[()]
    _require_out(out, stack, core, dtype)
    target, shape = np.asarray(out), stack + core
    if target.shape == shape and target.dtype == dtype:
        _multiply(left, right, target)
    else:
        result = _empty(shape, dtype, left, right)
        _multiply(left, right, result)
        np.copyto(target, result.reshape(shape[-target.ndim :] if target.ndim else ()), casting="same_kind")
    return out


def _has_own_rules(value: object) -> bool:
    return type(value) not in _PLAIN and hasattr(type(value), "__array_ufunc__")


def _stack(a: Array, b: Array) -> Shape:
    """The leading axes of the result, after all checks that need only shapes."""
    for name, array in (("a", a), ("b", b)):
        if array.ndim == 0:
            raise ShapeError(f"matmul: {name} is a single number; a has shape {a.shape}, b {b.shape}")
    if a.shape[-1] != b.shape[-2:][0]:
        raise ShapeError(f"matmul: inner dimensions differ: a {a.shape}, b {b.shape}")
    if a.ndim <= 2 and b.ndim <= 2:
        return ()
    try:
        return np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"matmul: the stacks of a {a.shape} and b {b.shape} do not broadcast") from None


def _empty(shape: Shape, dtype: np.dtype[Any], a: Array, b: Array) -> Array:
    try:
        return np.empty(shape, dtype)
    except ValueError:
        raise ShapeError(f"matmul: a {a.shape}, b {b.shape}: the size of {shape} overflows") from None


def _require_out(out: Any, stack: Shape, core: Shape, dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise DTypeError(f"matmul: out must be an array, not {type(out).__name__}")
    # As NumPy has it: the stack may be broadcast to that of `out`, or lose leading axes of length 1.
    leading = out.ndim - len(core)
    dropped = max(0, len(stack) - leading)
    fits = leading >= 0 and out.shape[leading:] == core and all(n == 1 for n in stack[:dropped])
    if fits:
        sizes = zip(reversed(stack[dropped:]), reversed(out.shape[:leading]), strict=False)
        fits = all(n in (1, size) for n, size in sizes)
    if not fits:
        raise ShapeError(f"matmul: out has shape {out.shape}, not {stack + core}")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise DTypeError(f"matmul: out is {out.dtype}; {dtype} does not cast to it")
    if not out.flags.writeable:
        raise ValueError("matmul: out is read-only")


def _multiply(a: Array, b: Array, out: Array) -> None:
    """`out` = a b, of its shape and type."""
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    if a.ndim == 1:
        a, out = a[None, :], out[..., None, :]
    _core.matmul(a, b, out)
