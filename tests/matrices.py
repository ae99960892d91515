"""Matrices that the tests of products share: their types, layouts, sizes and bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES = [np.float32, np.float64]
# One step beyond the working type: float64 for f32, the x87 or quad type for f64 where the machine has one.
EXACT = {np.float32: np.float64, np.float64: np.longdouble}
# A product of few rows or columns may take a path of its own (vectors, no packing), and a sum begins a new
# accumulator every 384 terms.
FEW = [1, 2, 4, 8, 12]
ACROSS = [1, 3, 5, 16, 17, 33, 64, 257]
EDGES = [(m, n) for m in FEW for n in ACROSS] + [(m, n) for m in ACROSS if m not in FEW for n in FEW]
DEPTHS = [1, 2, 13, 128, 130, 383, 384, 385, 769, 1025]
TRANSPOSES = [(False, False), (False, True), (True, False), (True, True)]
LAYOUTS = ["C", "F", "every_other", "reversed", "mirrored", "off_by_one", "unaligned"]


def laid_out(values: Array, layout: str) -> Array:
    """The same values in another memory layout."""
    rows, cols = values.shape
    match layout:
        case "F":
            return np.asfortranarray(values)
        case "every_other":
            base = np.full((2 * rows, 3 * cols), np.nan, values.dtype)
            view = base[::2, ::3]
        case "reversed":
            view = np.empty_like(values)[::-1]
        case "mirrored":
            view = np.empty_like(values)[:, ::-1]
        case "off_by_one":  # adjacent elements that begin off every vector's boundary
            view = np.empty(values.size + 1, values.dtype)[1:].reshape(rows, cols)
        case "unaligned":  # off the element's own boundary too
            buffer = np.empty(values.nbytes + 1, np.uint8)
            view = buffer[1:].view(values.dtype).reshape(rows, cols)
        case _:
            view = np.empty_like(values)
    view[...] = values
    return view


def operands(
    make: Callable[[tuple[int, int]], Array], m: int, n: int, k: int, trans_a: bool, trans_b: bool
) -> tuple[Array, Array]:
    """a and b as `gemm` takes them: op(a) (m, k), op(b) (k, n)."""
    return make((k, m) if trans_a else (m, k)), make((n, k) if trans_b else (k, n))


def lapack_ratio(got: Array, want: Array, size: Array) -> float:
    """max |C - ref| / (eps G). Where G = 0 every term is zero, and so must C be."""
    if got.size == 0:
        return 0.0
    info = np.finfo(got.dtype)
    return float((abs(got - want) / (info.eps * np.maximum(size, info.tiny))).max())


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Array:
    """Within +-32: a sum of k < 16384 products stays under 2**24, so every float32 partial sum is exact."""
    return rng.integers(-32, 33, shape).astype(dtype)


def require_same(got: Array, want: Array, bound: Array) -> None:
    """Two computations of a product: within `bound`, and the same to the bit but where another path may add
    the terms in another order: few rows or columns, and last ones of more than 32 that fill no vector."""
    assert (np.abs(got - want) <= bound).all()
    if min(want.shape[-2:]) > 12:
        cols = want.shape[-1]
        whole = cols // 16 * 16 if cols > 32 else cols
        assert got[..., :whole].tobytes() == want[..., :whole].tobytes()


@dataclass(frozen=True)
class Product:
    """One call of gemm on normal deviates."""

    shape: tuple[int, int, int]  # m, n, k
    trans_a: bool
    trans_b: bool
    layouts: tuple[str, str, str]  # of a, b, c
    alpha: float
    beta: float
    bias: bool
    seed: int

    def draw(self, dtype: type) -> tuple[Array, Array, Array, dict[str, Any]]:
        """a, b, c and the other arguments."""
        rng = np.random.default_rng(self.seed)
        m, n, k = self.shape

        def normal(shape: tuple[int, ...]) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        a, b = operands(normal, m, n, k, self.trans_a, self.trans_b)
        a, b, c = (
            laid_out(x, layout) for x, layout in zip((a, b, normal((m, n))), self.layouts, strict=True)
        )
        bias = normal((n,)) if self.bias else None
        options = {"alpha": self.alpha, "beta": self.beta, "bias": bias}
        return a, b, c, options | {"trans_a": self.trans_a, "trans_b": self.trans_b}


def products(depths: list[int]) -> st.SearchStrategy[Product]:
    """Of any small shape, with every depth of the list among them."""
    depth = st.one_of(st.integers(0, 90), st.sampled_from(depths))
    return st.builds(
        Product,
        shape=st.tuples(st.integers(0, 40), st.integers(0, 70), depth),
        trans_a=st.booleans(),
        trans_b=st.booleans(),
        layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
        alpha=st.sampled_from([1.0, -1.0, 0.0, 0.37, 1e3]),
        beta=st.sampled_from([0.0, 1.0, -0.5, 7.0]),
        bias=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
