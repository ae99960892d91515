"""GEMM: the LAPACK ratio, exactness on integers, the epilogue, and the same bits for any number of threads.

Layouts and memory are in test_gemm_layouts.py, special values in test_gemm_values.py, bad input in
test_gemm_arguments.py.
"""

import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from matrices import (
    DEPTHS,
    DTYPES,
    EDGES,
    EXACT,
    TRANSPOSES,
    Product,
    integers,
    lapack_ratio,
    operands,
    products,
)  # fmt: skip

import gemmule as gm

# Tile heights go to 14; widths are 16, 32 and 64 (f32), half of that (f64). Each edge, one under, one over.
ROWS = [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 14, 15, 23, 28, 29]
COLS = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 37, 63, 64, 65, 97, 129]


# -- correctness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(product=products(DEPTHS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lapack_ratio(isa: str, dtype: type, product: Product) -> None:
    """The reference BLAS testers' criterion, on any layout. Chains are at most 384 long: 16, whatever k."""
    a, b, c, options = product.draw(dtype)
    want, size = reference.gemm(a, b, c, exact=EXACT[dtype], **options)
    got = gm.ops.gemm(a, b, out=c, **options)
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


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lapack_ratio_of_few_rows_or_columns(isa: str, dtype: type, k: int) -> None:
    """Positive data again. longdouble products are slow, so every third pair of sizes takes its turn."""
    rng = np.random.default_rng(k)
    for i, (m, n) in enumerate(EDGES[k % 3 :: 3]):
        trans_a, trans_b = TRANSPOSES[i % 4]
        a, b = operands(lambda shape: rng.random(shape).astype(dtype), m, n, k, trans_a, trans_b)
        c = rng.random((m, n)).astype(dtype)
        want, size = reference.gemm(
            a, b, c, alpha=0.7, beta=1.3, trans_a=trans_a, trans_b=trans_b, exact=EXACT[dtype]
        )
        got = gm.ops.gemm(a, b, out=c, alpha=0.7, beta=1.3, trans_a=trans_a, trans_b=trans_b)
        assert lapack_ratio(got, want, size) < 16, f"m={m} n={n} trans={trans_a, trans_b}"


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_tile_edges(isa: str, dtype: type, trans_a: bool, trans_b: bool) -> None:
    """Tolerance 0 shows any term lost or doubled, which a rounding bound lets pass."""
    rng = np.random.default_rng(2)
    for m in ROWS:
        for n in COLS:
            for k in (0, 1, 2, 7, 33):
                a, b = operands(lambda shape: integers(rng, shape, dtype), m, n, k, trans_a, trans_b)
                want, _ = reference.gemm(a, b, trans_a=trans_a, trans_b=trans_b)
                got = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b)
                np.testing.assert_array_equal(got, want, err_msg=f"m={m} n={n} k={k}")


def require_exact(shape: tuple[int, int, int], dtype: type, trans_a: bool, trans_b: bool) -> None:
    """A product of integers alone, with an epilogue, and over NaN."""
    m, n, k = shape
    rng = np.random.default_rng(12)
    a, b = operands(lambda shape: integers(rng, shape, dtype), m, n, k, trans_a, trans_b)
    c, bias = integers(rng, (m, n), dtype), integers(rng, (n,), dtype)
    plain = (a.T if trans_a else a) @ (b.T if trans_b else b)  # exact, in any order
    got = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b)
    np.testing.assert_array_equal(got, plain, err_msg=f"{shape}")
    want = np.maximum(3 * c - plain + bias, 0)
    gm.ops.gemm(a, b, c, alpha=-1, beta=3, trans_a=trans_a, trans_b=trans_b, bias=bias, activation="relu")
    np.testing.assert_array_equal(c, want, err_msg=f"{shape}, with an epilogue")
    c.fill(np.nan)
    gm.ops.gemm(a, b, c, alpha=-1, trans_a=trans_a, trans_b=trans_b, bias=bias, activation="relu")
    np.testing.assert_array_equal(c, np.maximum(bias - plain, 0), err_msg=f"{shape}, over NaN")


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_few_rows_or_columns(
    isa: str, dtype: type, trans_a: bool, trans_b: bool
) -> None:
    """Where vectors, products without packing and packed ones meet."""
    for m, n in EDGES:
        for k in DEPTHS:
            require_exact((m, n, k), dtype, trans_a, trans_b)


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_where_columns_are_left(
    isa: str, dtype: type, trans_a: bool, trans_b: bool
) -> None:
    """Outer products, narrow ones of any number of rows, and last columns that fill no vector."""
    outer = [(m, n, k) for m in (3, 4, 9) for n in (9, 33, 70) for k in (1, 2, 3, 4, 5)]
    narrow = [(m, n, 20) for m in range(8, 42) for n in (3, 10, 17)]
    left = [(m, n, k) for m in (14, 37) for n in [*range(33, 41), 100, 200] for k in (0, 31, 70)]
    nothing = [(1, 300, 5), (1, 300, 0), (65, 17, 0), (300, 33, 0)]  # to add up, where something was
    for shape in outer + narrow + left + nothing:
        require_exact(shape, dtype, trans_a, trans_b)


@pytest.mark.parametrize("shape", [(2100, 1027, 2), (1, 1030, 3100), (1, 4100, 9)])
def test_exact_on_integers_from_memory(isa: str, shape: tuple[int, int, int]) -> None:
    """A C or a B of more than 8 or 12 MB, whose lines are fetched; a row longer than its sums' memory."""
    require_exact(shape, np.float32, False, False)


@pytest.mark.parametrize("k", [383, 384, 385, 767, 768, 769, 1151, 1152, 1153, 3000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_depth_edges(isa: str, dtype: type, k: int) -> None:
    """k about the multiples of 384, where a new accumulator begins."""
    rng = np.random.default_rng(k)
    for m, n in [(1, 1), (1, 65), (13, 1), (5, 17), (14, 64), (29, 47)]:
        for trans_a, trans_b in TRANSPOSES:
            a, b = operands(lambda shape: integers(rng, shape, dtype), m, n, k, trans_a, trans_b)
            c = integers(rng, (m, n), dtype)
            want, _ = reference.gemm(a, b, c, alpha=-1, beta=2, trans_a=trans_a, trans_b=trans_b)
            gm.ops.gemm(a, b, out=c, alpha=-1, beta=2, trans_a=trans_a, trans_b=trans_b)
            np.testing.assert_array_equal(c, want, err_msg=f"m={m} n={n}")


@pytest.mark.parametrize(
    "shape",
    [
        (33, 4500, 40),
        (4500, 33, 40),
        (701, 131, 770),
        (257, 509, 401),
        (9, 1030, 130),
        (10, 2048, 32),
        (12, 1100, 800),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_at_block_edges(
    isa: str, dtype: type, shape: tuple[int, int, int], threads: int
) -> None:
    """Wider than a block of columns, taller than a strip of rows, one strip as high as a tile, split over any
    number of threads."""
    rng = np.random.default_rng(3)
    m, n, k = shape
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    bias = integers(rng, (1, n), dtype)[0]
    want, _ = reference.gemm(a, b, bias=bias)
    np.testing.assert_array_equal(gm.ops.gemm(a, b, bias=bias), want)


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_where_b_is_packed_on_the_way(
    isa: str, dtype: type, trans_a: bool, threads: int
) -> None:
    """Few rows and a wide B, row by row: panels whole and not, one depth and several, one tile and many, into
    a window of a wider C."""
    rng = np.random.default_rng(14)
    for m, n, k in [(25, 129, 70), (64, 160, 385), (61, 288, 800), (131, 200, 384), (250, 331, 33)]:
        a = integers(rng, (k, m) if trans_a else (m, k), dtype)
        b, bias = integers(rng, (k, n), dtype), integers(rng, (n,), dtype)
        plain = (a.T if trans_a else a) @ b
        frame = np.full((m, n + 9), np.nan, dtype)
        c = frame[:, 4:-5]
        gm.ops.gemm(a, b, c, alpha=-1, trans_a=trans_a, bias=bias, activation="relu")
        np.testing.assert_array_equal(c, np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")
        gm.ops.gemm(a, b, c, beta=2, trans_a=trans_a)
        np.testing.assert_array_equal(c, plain + 2 * np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")
        assert np.isnan(frame[:, :4]).all() and np.isnan(frame[:, -5:]).all()
        gm.ops.gemm(a, b, c, trans_a=trans_a, activation="softplus")
        want = gm.ops.activation(plain, "softplus")  # in another pass: the same function of the same sums
        np.testing.assert_array_equal(c, want, err_msg=f"{m} {n} {k}")


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers_in_deep_blocks(isa: str, dtype: type, trans_a: bool, trans_b: bool) -> None:
    """Several sums follow each other in a tile: in one block of the depth and in more, in one of the columns
    and in more. A packed, in place and, by columns, several strips at a time; B packed by the call or before.
    Into a window of a wider C that holds NaN, and added to it."""
    rng = np.random.default_rng(15)
    for m, n, k in [(270, 290, 800), (20, 60, 1500), (270, 1100, 1300), (41, 1061, 771)]:
        a, b = operands(lambda shape: integers(rng, shape, dtype), m, n, k, trans_a, trans_b)
        bias = integers(rng, (n,), dtype)
        plain = (a.T if trans_a else a) @ (b.T if trans_b else b)
        for right in (b, gm.ops.PackedMatrix(b, trans=trans_b)):
            transposes = {"trans_a": trans_a, "trans_b": trans_b and right is b}
            frame = np.full((m, n + 9), np.nan, dtype)
            c = frame[:, 4:-5]
            gm.ops.gemm(a, right, c, alpha=-1, bias=bias, activation="relu", **transposes)
            np.testing.assert_array_equal(c, np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")
            gm.ops.gemm(a, right, c, beta=2, **transposes)
            np.testing.assert_array_equal(c, plain + 2 * np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")
            assert np.isnan(frame[:, :4]).all() and np.isnan(frame[:, -5:]).all()


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_take_at_most_384_terms(isa: str, dtype: type) -> None:
    """K beyond 384 terms of every lane, and B so large that rows are read a few at a time."""
    rng = np.random.default_rng(5)
    for m, n, k in [
        (1, 9, 20_000),
        (3, 5, 13_000),
        (17, 2, 7_000),
        (1, 3000, 400),
        (2, 2100, 390),
        (7, 1500, 800),
    ]:
        for trans_a, trans_b in TRANSPOSES:
            a, b = operands(lambda shape: rng.random(shape).astype(dtype), m, n, k, trans_a, trans_b)
            bias = rng.random(n).astype(dtype)
            want, size = reference.gemm(a, b, trans_a=trans_a, trans_b=trans_b, bias=bias, exact=EXACT[dtype])
            got = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b, bias=bias)
            assert lapack_ratio(got, want, size) < 16, f"m={m} n={n} trans={trans_a, trans_b}"


# -- threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 2000, 1500),
        (8, 1200, 700),
        (900, 1025, 5),
        (11, 1500, 300),
        (2000, 1, 1500),
        (1, 1, 300_000),
        (2, 3, 100_000),
        (1, 700, 385),
        (64, 256, 784),
        (256, 100, 31),
        (301, 387, 1025),
        (4000, 3, 700),
        (3, 4000, 700),
        (500, 700, 2),
        (200, 100, 90),
    ],
)
def test_fault_19_threads_do_not_change_a_bit(
    isa: str, dtype: type, shape: tuple[int, int, int], thread_counts: list[int]
) -> None:
    m, n, k = shape
    rng = np.random.default_rng(11)
    bias = rng.standard_normal(n).astype(dtype)
    for trans_a, trans_b in TRANSPOSES:
        a, b = operands(lambda shape: rng.standard_normal(shape).astype(dtype), m, n, k, trans_a, trans_b)
        results = set()
        for count in thread_counts:
            gm.set_num_threads(count)
            got = gm.ops.gemm(
                a, b, trans_a=trans_a, trans_b=trans_b, bias=bias, activation="tanh", alpha=1e-2
            )
            results.add(got.tobytes())
        assert len(results) == 1, (trans_a, trans_b)
