"""GEMM: the LAPACK ratio, exactness on integers, and all that layouts, sizes and special values do to it."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
DTYPES = [np.float32, np.float64]
# One step beyond the working type: float64 for f32, the x87 or quad type for f64 where the machine has one.
EXACT = {np.float32: np.float64, np.float64: np.longdouble}

# Tile heights go to 14; widths are 16, 32 and 64 (f32), half of that (f64). Each edge, one under, one over.
ROWS = [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 14, 15, 23, 28, 29]
COLS = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 37, 63, 64, 65, 97, 129]
LAYOUTS = ["C", "F", "every_other", "reversed", "mirrored", "unaligned"]


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
        case "unaligned":
            buffer = np.empty(values.nbytes + 1, np.uint8)
            view = buffer[1:].view(values.dtype).reshape(rows, cols)
        case _:
            view = np.empty_like(values)
    view[...] = values
    return view


def lapack_ratio(got: Array, want: Array, size: Array) -> float:
    """max |C - ref| / (eps G). Where G = 0 every term is zero, and so must C be."""
    if got.size == 0:
        return 0.0
    info = np.finfo(got.dtype)
    return float((abs(got - want) / (info.eps * np.maximum(size, info.tiny))).max())


def integers(rng: np.random.Generator, shape: tuple[int, int], dtype: type) -> Array:
    """Within +-32: a sum of k < 16384 products stays under 2**24, so every float32 partial sum is exact."""
    return rng.integers(-32, 33, shape).astype(dtype)


# -- correctness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(0, 70), st.integers(0, 90)),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    alpha=st.sampled_from([1.0, -1.0, 0.0, 0.37, 1e3]),
    beta=st.sampled_from([0.0, 1.0, -0.5, 7.0]),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lapack_ratio(
    isa: str,
    dtype: type,
    shape: tuple[int, int, int],
    trans_a: bool,
    trans_b: bool,
    layouts: tuple[str, str, str],
    alpha: float,
    beta: float,
    bias: bool,
    seed: int,
) -> None:
    """The reference BLAS testers' criterion, on any layout. Chains are at most 384 long: 16, whatever k."""
    rng = np.random.default_rng(seed)
    m, n, k = shape
    a = laid_out(rng.standard_normal((k, m) if trans_a else (m, k)).astype(dtype), layouts[0])
    b = laid_out(rng.standard_normal((n, k) if trans_b else (k, n)).astype(dtype), layouts[1])
    c = laid_out(rng.standard_normal((m, n)).astype(dtype), layouts[2])
    d = rng.standard_normal(n).astype(dtype) if bias else None
    want, size = reference.gemm(
        a, b, c, alpha=alpha, beta=beta, trans_a=trans_a, trans_b=trans_b, bias=d, exact=EXACT[dtype]
    )
    got = gm.ops.gemm(a, b, out=c, alpha=alpha, beta=beta, trans_a=trans_a, trans_b=trans_b, bias=d)
    assert got is c
    assert lapack_ratio(got, want, size) < 16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 10, 50_176), (12, 33, 20_000), (200, 190, 1_000), (64, 256, 784)])
def test_lapack_ratio_of_long_sums(isa: str, dtype: type, shape: tuple[int, int, int]) -> None:
    """Positive data, where rounding errors of one long chain would add up: k = 50,176 gives 103 that way."""
    rng = np.random.default_rng(1)
    m, n, k = shape
    a, b = rng.random((m, k)).astype(dtype), rng.random((n, k)).astype(dtype)
    want, size = reference.gemm(a, b, trans_b=True, exact=EXACT[dtype])
    assert lapack_ratio(gm.ops.gemm(a, b, trans_b=True), want, size) < 16


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_tile_edges(isa: str, dtype: type, trans_a: bool, trans_b: bool) -> None:
    """Tolerance 0 shows any term lost or doubled, which a rounding bound lets pass."""
    rng = np.random.default_rng(2)
    for m in ROWS:
        for n in COLS:
            for k in (0, 1, 2, 7, 33):
                a = integers(rng, (k, m) if trans_a else (m, k), dtype)
                b = integers(rng, (n, k) if trans_b else (k, n), dtype)
                want, _ = reference.gemm(a, b, trans_a=trans_a, trans_b=trans_b)
                got = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b)
                np.testing.assert_array_equal(got, want, err_msg=f"m={m} n={n} k={k}")


@pytest.mark.parametrize("k", [383, 384, 385, 767, 768, 769, 1151, 1152, 1153, 3000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_depth_edges(isa: str, dtype: type, k: int) -> None:
    """k about the multiples of 384, where a new accumulator begins."""
    rng = np.random.default_rng(k)
    for m, n in [(1, 1), (1, 65), (13, 1), (5, 17), (14, 64), (29, 47)]:
        for trans_a, trans_b in [(False, False), (False, True), (True, False), (True, True)]:
            a = integers(rng, (k, m) if trans_a else (m, k), dtype)
            b = integers(rng, (n, k) if trans_b else (k, n), dtype)
            c = integers(rng, (m, n), dtype)
            want, _ = reference.gemm(a, b, c, alpha=-1, beta=2, trans_a=trans_a, trans_b=trans_b)
            gm.ops.gemm(a, b, out=c, alpha=-1, beta=2, trans_a=trans_a, trans_b=trans_b)
            np.testing.assert_array_equal(c, want, err_msg=f"m={m} n={n}")


@pytest.mark.parametrize("shape", [(33, 4500, 40), (4500, 33, 40), (701, 131, 770), (257, 509, 401)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_block_edges(
    isa: str, dtype: type, shape: tuple[int, int, int], threads: int
) -> None:
    """Wider than a block of columns, taller than a strip of rows, split over any number of threads."""
    rng = np.random.default_rng(3)
    m, n, k = shape
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    bias = integers(rng, (1, n), dtype)[0]
    want, _ = reference.gemm(a, b, bias=bias)
    np.testing.assert_array_equal(gm.ops.gemm(a, b, bias=bias), want)


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_activation_epilogue(isa: str, dtype: type, activation: str) -> None:
    """act(A B^T + b) against the reference.

    z is within 16 eps G of the reference and every |f'| here is at most 1.13, so f(z) moves by at most
    1.13 * 16 eps G; evaluating f adds a few eps of |z| + 1 (gelu multiplies z by a rounded probability).
    """
    rng = np.random.default_rng(4)
    form = reference.ACTIVATIONS[activation]
    eps = np.finfo(dtype).eps
    for m, n, k in [(1, 1, 3), (1, 77, 20), (13, 33, 50), (64, 10, 128), (30, 130, 390)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
        bias = rng.standard_normal(n).astype(dtype)
        z, size = reference.gemm(a, b, trans_b=True, bias=bias)
        got = gm.ops.gemm(a, b, trans_b=True, bias=bias, activation=activation)
        bound = eps * (1.13 * 16 * size + 8 * (abs(z) + 1))
        assert (abs(got - form.f(z, form.slope)) <= bound).all()


# -- operands that are not read, special values --------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 5, 9), (13, 1, 40), (14, 33, 17), (40, 70, 400)])
def test_fault_1_operands_not_read_have_no_effect(isa: str, dtype: type, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(5)
    a, b, c = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype), integers(rng, (m, n), dtype)
    poison = np.full((m, n), np.nan, dtype)
    np.testing.assert_array_equal(gm.ops.gemm(a, b, out=poison, beta=0), a @ b)
    nan_a, inf_b = np.full_like(a, np.nan), np.full_like(b, np.inf)
    np.testing.assert_array_equal(gm.ops.gemm(nan_a, inf_b, out=c.copy(), alpha=0, beta=3), 3 * c)
    poison[...] = np.nan
    assert not gm.ops.gemm(nan_a, inf_b, out=poison, alpha=0, beta=0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_2_empty_sizes(isa: str, dtype: type) -> None:
    """k = 0 gives beta C (+ bias); m = 0 or n = 0 gives an empty array."""
    c = np.arange(15, dtype=dtype).reshape(3, 5)
    a, b = np.empty((3, 0), dtype), np.empty((0, 5), dtype)
    np.testing.assert_array_equal(gm.ops.gemm(a, b), np.zeros((3, 5)))
    np.testing.assert_array_equal(gm.ops.gemm(a, b, out=c.copy(), beta=2), 2 * c)
    np.testing.assert_array_equal(gm.ops.gemm(a, b, bias=np.ones(5, dtype)), np.ones((3, 5)))
    assert gm.ops.gemm(np.ones((0, 4), dtype), np.ones((4, 5), dtype)).shape == (0, 5)
    assert gm.ops.gemm(np.ones((3, 4), dtype), np.ones((4, 0), dtype)).shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 9, 30), (9, 1, 30), (13, 37, 60), (31, 66, 400)])
def test_fault_20_nan_and_infinity_propagate(isa: str, dtype: type, shape: tuple[int, int, int]) -> None:
    """Zeros are not skipped: 0 * inf is NaN. Elements that meet no special value stay exact."""
    m, n, k = shape
    rng = np.random.default_rng(6)
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    a[rng.random(a.shape) < 0.3] = 0
    for special in (np.nan, np.inf, -np.inf):
        a[rng.integers(m), rng.integers(k)] = special
        b[rng.integers(k), rng.integers(n)] = special
    with np.errstate(invalid="ignore"):
        want = (a[:, :, None].astype(np.float64) * b).sum(axis=1)
        got, relu = gm.ops.gemm(a, b), gm.ops.gemm(a, b, activation="relu")
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(relu, np.maximum(want, 0))


# -- layouts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_3_any_layout_gives_the_result_of_a_contiguous_copy(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(7)
    for m, n, k in [(1, 20, 30), (17, 35, 41), (50, 130, 390)]:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        want = a @ b
        for layout_a in LAYOUTS:
            for layout_b in LAYOUTS:
                got = gm.ops.gemm(laid_out(a, layout_a), laid_out(b, layout_b))
                np.testing.assert_array_equal(got, want, err_msg=f"{layout_a} {layout_b}")
        for layout in LAYOUTS:
            out = laid_out(np.full((m, n), np.nan, dtype), layout)
            np.testing.assert_array_equal(gm.ops.gemm(a, b, out=out), want, err_msg=f"out {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_3_zero_and_huge_strides(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(8)
    row, column = integers(rng, (1, 40), dtype), integers(rng, (40, 1), dtype)
    wide = integers(rng, (40, 33), dtype)
    a = np.broadcast_to(row, (13, 40))
    np.testing.assert_array_equal(gm.ops.gemm(a, wide), np.ascontiguousarray(a) @ wide)
    b = np.broadcast_to(column, (40, 33))
    np.testing.assert_array_equal(gm.ops.gemm(wide.T, b), wide.T @ np.ascontiguousarray(b))
    # Rows 8 MB apart: only the touched pages of the buffer exist.
    far = np.zeros((20, 1 << 20), dtype)[:, :: 1 << 14]
    far[...] = integers(rng, far.shape, dtype)
    other = integers(rng, (far.shape[1], 9), dtype)
    np.testing.assert_array_equal(gm.ops.gemm(far, other), np.ascontiguousarray(far) @ other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_4_out_overlapping_an_input_is_correct_or_refused(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(9)
    n = 35
    values = integers(rng, (n, n), dtype)
    other = integers(rng, (n, n), dtype)
    buffer = np.zeros(2 * n * n, dtype)
    for start in (0, 1, n, n * n - 1):
        for transposed in (False, True):
            for side in ("a", "b"):
                operand = buffer[start : start + n * n].reshape(n, n)
                operand[...] = values
                out = buffer[: n * n].reshape(n, n)
                out = out.T if transposed else out
                a, b = (operand, other) if side == "a" else (other, operand)
                want, before = a @ b, buffer.copy()
                try:
                    got = gm.ops.gemm(a, b, out=out)
                except ValueError:
                    np.testing.assert_array_equal(buffer, before)
                else:
                    np.testing.assert_array_equal(got, want, err_msg=f"{side} from {start}, {transposed}")
                    np.testing.assert_array_equal(buffer[n * n :], before[n * n :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [1, 2])
def test_nothing_outside_out_is_written(isa: str, dtype: type, step: int) -> None:
    """out is a window of a larger array of NaN with a payload of its own in each element."""
    rng = np.random.default_rng(10)
    bits = np.uint32 if dtype == np.float32 else np.uint64
    for m in (1, 5, 13, 14, 29):
        for n in (1, 7, 17, 33, 63, 65):
            for k in (3, 390):
                quiet_nan = np.array(np.nan, dtype).view(bits)
                shape = (m + 6, step * n + 70)
                frame = (quiet_nan + np.arange(np.prod(shape), dtype=bits).reshape(shape)).view(dtype)
                before = frame.view(bits).copy()
                window = frame[3:-3, 32 : 32 + step * n : step]
                a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
                np.testing.assert_array_equal(gm.ops.gemm(a, b, out=window), a @ b)
                outside = np.ones(shape, bool)
                outside[3:-3, 32 : 32 + step * n : step] = False
                np.testing.assert_array_equal(frame.view(bits)[outside], before[outside])


# -- threads, errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 2000, 1500), (64, 256, 784), (301, 387, 1025), (4000, 3, 700), (3, 4000, 700)]
)
def test_fault_19_threads_do_not_change_a_bit(isa: str, dtype: type, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(11)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
    results = []
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        results.append(gm.ops.gemm(a, b, trans_b=True, activation="tanh").tobytes())
    gm.set_num_threads(None)
    assert len(set(results)) == 1


def test_bad_arguments_are_named() -> None:
    a, b = np.ones((3, 4), np.float32), np.ones((5, 6), np.float32)
    with pytest.raises(gm.ShapeError, match=r"gemm.*\(3, 4\).*\(5, 6\)"):
        gm.ops.gemm(a, b)
    b = np.ones((4, 6), np.float32)
    with pytest.raises(gm.ShapeError, match=r"gemm.*out.*\(3, 5\).*\(3, 6\)"):
        gm.ops.gemm(a, b, out=np.empty((3, 5), np.float32))
    with pytest.raises(gm.ShapeError, match=r"gemm.*bias"):
        gm.ops.gemm(a, b, bias=np.ones(5, np.float32))
    with pytest.raises(gm.ShapeError, match="gemm"):
        gm.ops.gemm(a[0], b)
    with pytest.raises(ValueError, match="relu"):
        gm.ops.gemm(a, b, activation="rellu")
    with pytest.raises(TypeError):
        gm.ops.gemm(a, b, out=np.empty((3, 6), np.float64))


def test_read_only_out_is_refused_and_read_only_inputs_are_not() -> None:
    a, b, out = np.ones((3, 4), np.float32), np.ones((4, 6), np.float32), np.zeros((3, 6), np.float32)
    for array in (a, b, out):
        array.flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        gm.ops.gemm(a, b, out=out)
    np.testing.assert_array_equal(gm.ops.gemm(a, b), np.full((3, 6), 4))
