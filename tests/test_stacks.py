"""Stacks of products: each matrix is the product alone, wherever it lies."""

import numpy as np
import pytest
from matrices import DTYPES, Array, integers, require_same

import gemmule as gm
from gemmule import _core

# Around the edges of tiles and vectors, and of what counts as small; and sums of several accumulators.
SIZES = [(2, 2, 2), (4, 4, 4), (5, 3, 7), (8, 8, 8), (13, 17, 9), (32, 32, 32), (33, 40, 32), (3, 70, 150)]
SIZES += [(2, 3, 385), (1, 9, 5), (9, 1, 5), (1, 1, 3), (6, 7, 0)]


def one_by_one(a: Array, b: Array) -> Array:
    return np.array([gm.ops.gemm(x, y) for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_bits_are_those_of_each_product(isa: str, dtype: type, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((7, m, k)).astype(dtype), rng.standard_normal((7, k, n)).astype(dtype)
    want = one_by_one(a, b)
    bound = 2 * k * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
    columns, rows = np.swapaxes(a.swapaxes(1, 2).copy(), 1, 2), np.swapaxes(b.swapaxes(1, 2).copy(), 1, 2)
    for x in (a, columns, a[::-1].copy()[::-1]):
        for y in (b, rows, b[:, ::-1].copy()[:, ::-1], b[:, :, ::-1].copy()[:, :, ::-1]):
            require_same(gm.ops.matmul(x, y), want, bound)
    for x, y in ((np.broadcast_to(a[0], a.shape), b), (a, np.broadcast_to(b[0], b.shape))):
        bound = 2 * k * np.finfo(dtype).eps * (np.abs(x) @ np.abs(y))
        folded = gm.ops.matmul(x[0] if y is b else x, y if y is b else y[0])
        require_same(folded, one_by_one(x, y), bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 9, 20, 40, 120])
def test_any_team_gives_the_same_bits(dtype: type, size: int, threads: int) -> None:
    rng = np.random.default_rng(2)
    for count in (2, 5, 400 if size < 40 else 30):
        a, b = rng.standard_normal((2, count, size, size)).astype(dtype)
        assert gm.ops.matmul(a, b).tobytes() == one_by_one(a, b).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_between_the_matrices_is_left_alone(isa: str, dtype: type) -> None:
    """Whole vectors of b are read; NaN beside its columns must not come through, nor be written over."""
    rng = np.random.default_rng(3)
    for m, n, k in [(4, 3, 5), (8, 8, 8), (5, 18, 6)]:
        frame = np.full((6, 2, k, n + 20), np.nan, dtype)
        b = frame[:, 1, :, 7 : 7 + n]
        b[...] = integers(rng, (6, k, n), dtype)
        a = integers(rng, (6, m, k), dtype)
        result = np.full((6, m + 2, n + 3), np.nan, dtype)
        out = result[:, 1:-1, 1:-2]
        assert gm.ops.matmul(a, b, out=out) is out
        np.testing.assert_array_equal(out, a @ b)
        out[...] = np.nan
        assert np.isnan(result).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_in_any_order_of_axes(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    a, b = integers(rng, (3, 4, 6, 5), dtype), integers(rng, (4, 5, 8), dtype)
    want = a @ b
    for order in [(0, 1, 2, 3), (1, 0, 2, 3), (2, 3, 0, 1), (3, 2, 1, 0), (0, 1, 3, 2)]:
        out = np.full([want.shape[axis] for axis in order], np.nan, dtype).transpose(np.argsort(order))
        np.testing.assert_array_equal(gm.ops.matmul(a, b, out=out), want)
        np.testing.assert_array_equal(gm.ops.matmul(a[::2, ::-1], b[::-1], out=out[:2]), want[::2, ::-1])


def test_a_stack_may_be_written_over_its_operands() -> None:
    rng = np.random.default_rng(5)
    values = integers(rng, (30, 6, 6), np.float32)
    for shifted in (np.s_[:], np.s_[1:]):
        a = values.copy()
        want = a[: len(a[shifted])] @ a[shifted]
        np.testing.assert_array_equal(gm.ops.matmul(a[: len(want)], a[shifted], out=a[shifted]), want)


def test_what_is_not_the_kernels_work_is_left_to_numpys_rules() -> None:
    single, double = np.ones((2, 3, 3), np.float32), np.ones((2, 3, 3))
    frozen = np.ones((2, 3, 3))
    frozen.flags.writeable = False
    for a, b, out in [
        (single, double, None),
        (single.astype(int), single.astype(int), None),
        (double.astype(">f8"), double, None),
        (double[0, 0], double, None),
        (double, double, np.ones((5, 2, 3, 3))),
        (double, double, np.ones((2, 3, 3), np.float32)),
        (double, double, frozen),
    ]:
        assert _core.matmul(a, b, out) is None
    with pytest.raises(gm.ShapeError, match=r"inner.*\(2, 3, 3\).*\(2, 3\)"):
        _core.matmul(double, double[:, 0], None)
    with pytest.raises(gm.ShapeError, match="do not broadcast"):
        _core.matmul(np.ones((4, 3, 3)), np.ones((3, 3, 3)), None)
    repeated = np.lib.stride_tricks.as_strided(double, (2**31, 2**16, 1), (0, 0, 0))
    with pytest.raises(gm.ShapeError, match="overflows"):
        _core.matmul(repeated, repeated.swapaxes(1, 2), None)
