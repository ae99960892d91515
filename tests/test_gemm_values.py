"""GEMM: operands that are not read, sizes 0 and 1, NaN and infinity."""

import numpy as np
import pytest
from matrices import DTYPES, LAYOUTS, TRANSPOSES, integers, laid_out, operands

import gemmule as gm

SHAPES = [(1, 1, 7), (1, 5, 9), (13, 1, 40), (2, 64, 385), (14, 33, 17), (3, 130, 1025), (40, 70, 400)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
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
def test_fault_1_beta_zero_reads_no_layout_of_out(isa: str, dtype: type) -> None:
    """Nor does alpha = 0 read a, b, in any orientation; what is left is the bias."""
    rng = np.random.default_rng(15)
    for m, n, k in SHAPES:
        bias = integers(rng, (n,), dtype)
        for trans_a, trans_b in TRANSPOSES:
            trans = {"trans_a": trans_a, "trans_b": trans_b}
            a, b = operands(lambda shape: integers(rng, shape, dtype), m, n, k, trans_a, trans_b)
            want = (a.T if trans_a else a) @ (b.T if trans_b else b)
            for layout in LAYOUTS:
                out = laid_out(np.full((m, n), np.nan, dtype), layout)
                np.testing.assert_array_equal(gm.ops.gemm(a, b, out, beta=0, **trans), want)
            a[...], b[...] = np.nan, np.inf
            poison = np.full((m, n), np.nan, dtype)
            gm.ops.gemm(a, b, poison, alpha=0, beta=0, bias=bias, **trans)
            np.testing.assert_array_equal(poison, np.broadcast_to(bias, (m, n)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_what_is_read_comes_through(isa: str, dtype: type) -> None:
    """One NaN in c reaches one element; NaN as alpha or beta reaches all."""
    rng = np.random.default_rng(16)
    for m, n, k in SHAPES:
        a, b, c = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype), integers(rng, (m, n), dtype)
        c[m // 2, n // 2] = np.nan
        for alpha, beta in [(1, 1), (0, 2), (-1, 0.5)]:
            np.testing.assert_array_equal(
                gm.ops.gemm(a, b, c.copy(), alpha=alpha, beta=beta), alpha * (a @ b) + dtype(beta) * c
            )
        assert np.isnan(gm.ops.gemm(a, b, alpha=np.nan)).all()
        assert np.isnan(gm.ops.gemm(a, b, np.ones((m, n), dtype), beta=np.nan)).all()


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
    np.testing.assert_array_equal(gm.ops.gemm(a, b, out=np.full((3, 5), np.nan, dtype)), np.zeros((3, 5)))
    np.testing.assert_array_equal(gm.ops.gemm(a, b, activation="sigmoid"), np.full((3, 5), 0.5))
    for shape in ((0, 5), (3, 0), (0, 0)):
        a, b = np.ones((shape[0], 4), dtype), np.ones((4, shape[1]), dtype)
        out = np.empty(shape, dtype)
        assert gm.ops.gemm(a, b, out, beta=1, bias=np.ones(shape[1], dtype), activation="relu") is out


@pytest.mark.parametrize("dtype", DTYPES)
def test_size_one(isa: str, dtype: type) -> None:
    """Every combination of sizes 1 and 2, where strides of axes of length 1 may hold anything."""
    rng = np.random.default_rng(17)
    strange = np.lib.stride_tricks.as_strided
    for m, n, k in np.ndindex(2, 2, 2):
        a, b = integers(rng, (m + 1, k + 1), dtype), integers(rng, (k + 1, n + 1), dtype)
        for stride in (0, -8 * 10**9, 3):
            x, y = (
                strange(q, q.shape, [s if q.shape[i] > 1 else stride for i, s in enumerate(q.strides)])
                for q in (a, b)
            )
            np.testing.assert_array_equal(gm.ops.gemm(x, y), a @ b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 9, 30), (9, 1, 30), (2, 65, 385), (13, 37, 60), (3, 3, 1025), (31, 66, 400)]
)
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
    for trans_a, trans_b in TRANSPOSES:
        x = np.ascontiguousarray(a.T) if trans_a else a
        y = np.ascontiguousarray(b.T) if trans_b else b
        got = gm.ops.gemm(x, y, trans_a=trans_a, trans_b=trans_b)
        np.testing.assert_array_equal(got, want)
        relu = gm.ops.gemm(x, y, trans_a=trans_a, trans_b=trans_b, activation="relu")
        np.testing.assert_array_equal(relu, np.maximum(want, 0))
