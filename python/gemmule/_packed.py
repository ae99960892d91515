"""`PackedMatrix`: the right operand of many products, packed once."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from .arrays import Array, Shape, any_array
from .errors import DTypeError, ShapeError

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("float32", "float64")}


class PackedMatrix:
    """A matrix that is the right operand of many products, kept in the panels that the kernels read.

    b: (K, N), or (N, K) with `trans`, which packs its transpose; float32 stays, any other real type becomes
    float64. The values are copied: what is written into b later counts after `refresh`.

        weight = gm.ops.PackedMatrix(W, trans=True)          # W (n_out, n_in)
        z = gm.ops.dense(x, weight, bias)                    # x W^T + bias, as dense(x, W, bias)
        c = gm.ops.gemm(a, gm.ops.PackedMatrix(b))           # a b, and so do matmul and a @ packed

    `gemm`, `dense` and `matmul` take it for b and give what they give for the matrix itself: to the bit, or
    to rounding where that product has few rows, columns or terms and adds them in another order. The left
    operand is converted to its type; one of a wider type is a DTypeError. It pays where the matrix is used
    again and again with few rows (docs/kernels.md has figures).

    Several threads may multiply by it at once; `refresh` waits for them. Panels are as wide as the tile of
    the ISA in force: where another is forced, the next product packs anew. Copies and pickles carry the
    values.

    ShapeError where b is not a matrix, DTypeError where it is not real."""

    # NumPy's operators leave `array @ packed` to __rmatmul__.
    __array_ufunc__ = None

    def __init__(self, b: ArrayLike, trans: bool = False) -> None:
        array = any_array(b, "PackedMatrix: b")
        array = array.astype(_DTYPES.get(array.dtype.name, np.float64), copy=False)
        self._trans = bool(trans)
        self._panels = _core.PackedMatrix(array, self._trans)

    @property
    def shape(self) -> Shape:
        """(K, N): of b, or with `trans` of its transpose."""
        return self._panels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return _DTYPES[self._panels.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the panels, padding included."""
        return self._panels.nbytes

    def refresh(self, b: ArrayLike) -> None:
        """Pack new values in place, of the shape that b had.

        ShapeError for another shape, DTypeError where they do not cast to its type without narrowing."""
        self._panels.refresh(converted(b, self.dtype, "PackedMatrix: b"), self._trans)

    def unpack(self) -> Array:
        """The matrix (K, N), a new array."""
        return self._panels.unpack()

    def __rmatmul__(self, a: ArrayLike) -> Any:
        return matmul(a, self, None)

    def __reduce__(self) -> tuple[Any, ...]:
        matrix = self.unpack()
        return PackedMatrix, (matrix.T if self._trans else matrix, self._trans)

    def __repr__(self) -> str:
        return f"PackedMatrix({self.shape[0]} x {self.shape[1]}, {self.dtype})"


def converted(value: ArrayLike, dtype: np.dtype[Any], what: str) -> Array:
    """`value` in the type of a packed matrix; strides are left as they are where that is its own."""
    if type(value) is np.ndarray and value.dtype is dtype:  # nearly always
        return value
    array = any_array(value, what)
    if array.dtype.kind == "f" and array.dtype.itemsize > dtype.itemsize:
        raise DTypeError(f"{what} is {array.dtype}, the packed matrix {dtype}")
    return array.astype(dtype, copy=False)


def matmul(a: ArrayLike, b: PackedMatrix, out: Array | None) -> Any:
    """`ops.matmul`: all rows of a stack are rows of one product."""
    left, (depth, cols) = converted(a, b.dtype, "matmul: a"), b.shape
    if left.ndim == 0:
        raise ShapeError(f"matmul: a is a single number; packed b has shape {b.shape}")
    if left.shape[-1] != depth:
        raise ShapeError(f"matmul: inner dimensions differ: a {left.shape}, packed b {b.shape}")
    shape = (*left.shape[:-1], cols)
    if out is not None and not (isinstance(out, np.ndarray) and out.dtype == b.dtype):
        raise DTypeError(
            f"matmul: out must be an array of {b.dtype}, not {getattr(out, 'dtype', type(out).__name__)}"
        )
    if out is not None and out.shape != shape:
        raise ShapeError(f"matmul: out has shape {out.shape}, not {shape}")
    if out is not None and not out.flags.writeable:
        raise ValueError("matmul: out is read-only")
    rows = math.prod(shape[:-1])
    product = b._panels.gemm(left.reshape(rows, depth), out if out is not None and out.ndim == 2 else None)
    if out is None:
        return product.reshape(shape)
    if out is not product:
        out[...] = product.reshape(shape)
    return out
