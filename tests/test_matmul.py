"""gm.ops.matmul: NumPy's own tests of it, and NumPy's results on shapes, layouts and types of ours."""

import itertools
from typing import Any

import numpy as np
import pytest
from matrices import DTYPES, Array, integers

import gemmule as gm

try:
    from numpy._core.tests.test_multiarray import MatmulCommon
except ImportError:  # some builds of NumPy leave its tests out
    MatmulCommon = None

if MatmulCommon is None:

    @pytest.mark.skip(reason="this NumPy comes without its tests")
    def test_numpys_matmul_common() -> None: ...

else:

    class TestNumpysMatmulCommon(MatmulCommon):  # type: ignore[misc, valid-type]
        matmul = staticmethod(gm.ops.matmul)


rng = np.random.default_rng(0)

# Pairs of shapes that chain; the leading axes broadcast.
CHAINS = [
    ((7,), (7,)),
    ((7,), (7, 5)),
    ((5, 7), (7,)),
    ((5, 7), (7, 33)),
    ((3, 5, 7), (7,)),
    ((7,), (3, 7, 5)),
    ((3, 5, 7), (7, 6)),
    ((5, 7), (3, 7, 6)),
    ((3, 5, 7), (3, 7, 6)),
    ((3, 1, 7), (7, 6)),
    ((3, 5, 7), (3, 7, 1)),
    ((1, 5, 7), (3, 7, 6)),
    ((3, 5, 7), (1, 7, 6)),
    ((2, 1, 5, 7), (3, 7, 6)),
    ((2, 3, 5, 7), (2, 1, 7, 6)),
    ((4, 2, 3, 5, 7), (2, 1, 7, 6)),
    ((5, 7), (1, 1, 7, 6)),
    ((1, 1, 5, 7), (7,)),
    ((40, 30, 64), (64, 65)),
    # nothing to add, nothing to give
    ((0,), (0,)),
    ((5, 0), (0, 6)),
    ((3, 5, 0), (0, 6)),
    ((0, 5, 7), (7, 6)),
    ((0, 5, 7), (1, 7, 6)),
    ((5, 7), (0, 7, 6)),
    ((3, 0, 7), (7, 6)),
    ((3, 5, 7), (3, 7, 0)),
    ((0, 7), (7,)),
    ((3, 5, 0), (0,)),
]
MISFITS = [
    ((), (3,), "a is a single number"),
    ((3, 3), (), "b is a single number"),
    ((3,), (4,), "inner dimensions"),
    ((2, 3), (4,), "inner dimensions"),
    ((3,), (4, 2), "inner dimensions"),
    ((2, 3), (4, 5), "inner dimensions"),
    ((6, 2, 3), (6, 4, 5), "inner dimensions"),
    ((2, 4, 3), (5, 3, 4), "stacks"),
    ((2, 1, 4, 3), (3, 2, 3, 4), "stacks"),
]


def layouts(array: Array) -> list[Array]:
    """The same values in Fortran order, as every other element, mirrored, and read-only."""
    wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)[
        (slice(None, None, 2),) * array.ndim + (...,)
    ]
    wide[...] = array
    backwards = (slice(None, None, -1),) * array.ndim + (...,)
    mirrored = array[backwards].copy()[backwards]
    read_only = array.copy()
    read_only.flags.writeable = False
    return [array.copy(order="F"), wide, mirrored, read_only]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape_a", "shape_b"), CHAINS)
def test_shapes_give_what_numpy_gives(
    isa: str, dtype: type, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    a, b = integers(rng, shape_a, dtype), integers(rng, shape_b, dtype)
    want, got = np.matmul(a, b), gm.ops.matmul(a, b)
    assert type(got) is type(want) and got.dtype == dtype
    np.testing.assert_array_equal(got, want, strict=True)
    out = np.full(want.shape, np.nan, dtype)
    assert gm.ops.matmul(a, b, out) is out
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(gm.ops.matmul(a, b, out=(out,)), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape_a", "shape_b"), CHAINS)
def test_any_layout_gives_the_result_of_a_contiguous_copy(
    dtype: type, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    a, b = integers(rng, shape_a, dtype), integers(rng, shape_b, dtype)
    want = np.matmul(a, b)
    for x, y in itertools.product(layouts(a), layouts(b)):
        np.testing.assert_array_equal(gm.ops.matmul(x, y), want)
    for out in layouts(np.full(want.shape, np.nan, dtype))[:-1]:
        np.testing.assert_array_equal(gm.ops.matmul(a, b, out=out), want)


def test_stacks_whose_axes_repeat_or_skip() -> None:
    """What folds into one product and what does not: repeated, transposed and partial stacks."""
    a = integers(rng, (6, 4, 5, 7), np.float32)
    b = integers(rng, (7, 8), np.float32)
    repeated = np.broadcast_to(b, (6, 4, 7, 8))
    for x in (a, a.swapaxes(0, 1), a[::2], a[:, ::2], a[:, 1:3], a[:, :, ::2], a[..., 1:2, :], a[::-1]):
        want = np.matmul(x, b)
        np.testing.assert_array_equal(gm.ops.matmul(x, b), want)
        np.testing.assert_array_equal(gm.ops.matmul(x, repeated[: x.shape[0], :1]), want)
        np.testing.assert_array_equal(gm.ops.matmul(np.broadcast_to(x[:1], x.shape), b)[0], want[0])
        frame = np.full((*want.shape[:-2], want.shape[-2] + 2, 10), np.nan, np.float32)
        out = frame[..., 1:-1, 1:-1]
        np.testing.assert_array_equal(gm.ops.matmul(x, b, out=out), want)
        out[...] = np.nan
        assert np.isnan(frame).all()


@pytest.mark.parametrize(("shape_a", "shape_b"), [((3, 5, 7), (7, 6)), ((3, 40, 64), (3, 64, 65))])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(
    dtype: type, shape_a: tuple[int, ...], shape_b: tuple[int, ...], threads: int
) -> None:
    a, b = rng.standard_normal(shape_a).astype(dtype), rng.standard_normal(shape_b).astype(dtype)
    got = gm.ops.matmul(a, b)
    gm.set_num_threads(1)
    assert gm.ops.matmul(a, b).tobytes() == got.tobytes()


# -- out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_may_overlap_an_input(isa: str, dtype: type) -> None:
    for n, count in [(5, 4), (33, 3)]:
        other = integers(rng, (n, n), dtype)
        others = integers(rng, (count, n, n), dtype)
        for shift in (0, 1, n, n * n):
            for matrix in (other, others):
                for side in ("a", "b"):
                    buffer = integers(rng, ((count + 1) * n * n,), dtype)
                    operand = buffer[: count * n * n].reshape(count, n, n)
                    out = buffer[shift : shift + count * n * n].reshape(count, n, n)
                    pair = (operand, matrix) if side == "a" else (matrix, operand)
                    want = np.matmul(*pair)
                    np.testing.assert_array_equal(gm.ops.matmul(*pair, out=out), want)
        vector = integers(rng, (n,), dtype)
        want = np.matmul(other, vector)
        np.testing.assert_array_equal(gm.ops.matmul(other, vector, out=vector), want)
        square = other.copy()
        np.testing.assert_array_equal(gm.ops.matmul(square, square, out=square.T), other @ other)


def test_out_of_another_type_or_with_more_axes() -> None:
    # Sums of seven products below 2^8 are exact in float16 too.
    a, b = integers(rng, (1, 5, 7), np.float32) % 16, integers(rng, (7, 6), np.float32) % 16
    want = np.matmul(a, b)
    for shape, dtype in itertools.product([(1, 5, 6), (5, 6), (4, 5, 6), (2, 4, 5, 6)], "efdgFD"):
        out = np.zeros(shape, dtype)
        assert gm.ops.matmul(a, b, out=out) is out
        np.testing.assert_array_equal(out, np.broadcast_to(want, (1, *shape))[0])
    single = np.zeros(3, np.float64)
    np.testing.assert_array_equal(gm.ops.matmul(a[0, 0], b[:, 0], out=single), np.full(3, want[0, 0, 0]))
    zero_d = np.zeros(())
    assert gm.ops.matmul(a[0, 0], b[:, 0], out=zero_d) is zero_d and zero_d == want[0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_out_that_does_not_fit_is_named_and_not_written(dtype: type) -> None:
    a, b = np.ones((3, 5, 7), dtype), np.ones((7, 6), dtype)
    cases: list[tuple[Any, Any, Any]] = [
        (np.zeros((3, 6, 5), dtype), gm.ShapeError, r"out has shape \(3, 6, 5\), not \(3, 5, 6\)"),
        (np.zeros((5, 6), dtype), gm.ShapeError, r"\(5, 6\)"),
        (np.zeros((1, 5, 6), dtype), gm.ShapeError, r"\(1, 5, 6\)"),
        (np.zeros((3, 1, 6), dtype), gm.ShapeError, r"\(3, 1, 6\)"),
        (np.zeros((0, 5, 6), dtype), gm.ShapeError, r"\(0, 5, 6\)"),
        (np.zeros(6, dtype), gm.ShapeError, r"\(6,\)"),
        (np.zeros((3, 5, 6), np.int64), gm.DTypeError, "out is int64"),
        (np.zeros((3, 5, 6), bool), gm.DTypeError, "out is bool"),
        (np.broadcast_to(np.zeros((5, 6), dtype), (3, 5, 6)), ValueError, "out is read-only"),
        ([[0.0]], gm.DTypeError, "out must be an array, not list"),
    ]
    for out, kind, match in cases:
        with pytest.raises(kind, match=f"matmul: .*{match}"):
            gm.ops.matmul(a, b, out=out)
        assert not np.any(out)
    out = np.zeros((5, 6), dtype)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="matmul: out is read-only"):
        gm.ops.matmul(a[0], b, out=out)
    assert not out.any()


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, np.int64, np.complex128, object])
@pytest.mark.parametrize(("shape_a", "shape_b", "match"), MISFITS)
def test_shapes_that_do_not_chain(
    dtype: type, shape_a: tuple[int, ...], shape_b: tuple[int, ...], match: str
) -> None:
    a, b = np.ones(shape_a, dtype), np.ones(shape_b, dtype)
    with pytest.raises(gm.ShapeError, match=match) as caught:
        gm.ops.matmul(a, b)
    assert f"a has shape {shape_a}, b {shape_b}" in str(caught.value) or (
        f"a {shape_a}" in str(caught.value) and f"b {shape_b}" in str(caught.value)
    )


def test_a_result_beyond_the_address_space() -> None:
    one = np.ones(1, np.float32)
    tall = np.lib.stride_tricks.as_strided(one, (2**31, 1), (0, 0))
    for a, b in [(tall, tall.T), (tall[None], tall.T), (tall[:, :, None], tall.T[None])]:
        with pytest.raises(gm.ShapeError, match=r"matmul: .*2147483648, 1.*overflows"):
            gm.ops.matmul(a, b)


def test_types_meet_as_numpys_do() -> None:
    types = "?bhilqBHILQefdgFDGO"
    for ta, tb in itertools.product(types, types):
        a, b = np.ones((2, 3), ta), np.ones((3, 2), tb)
        want, got = np.matmul(a, b), gm.ops.matmul(a, b)
        assert got.dtype == want.dtype, (ta, tb)
        np.testing.assert_array_equal(got, want)
    for order in "<>":
        a = np.arange(6, dtype=f"{order}f4").reshape(2, 3)
        np.testing.assert_array_equal(gm.ops.matmul(a, a.T), np.matmul(a, a.T), strict=True)


def test_numpys_keywords() -> None:
    a = integers(rng, (3, 4, 5), np.float64)
    axes = [(-2, -1), (-1, -2), (0, 1)]
    np.testing.assert_array_equal(gm.ops.matmul(a, a, axes=axes), np.matmul(a, a, axes=axes))
    assert gm.ops.matmul(a, a[0].T, dtype=np.float32, casting="same_kind").dtype == np.float32
    out = np.zeros((3, 4, 4), np.float32)
    with pytest.raises(TypeError, match="safe"):
        gm.ops.matmul(a, a[0].T, out=out, casting="safe")
    assert not out.any()
    with pytest.raises(TypeError, match="where"):
        gm.ops.matmul(a, a[0].T, where=True)


def test_what_is_not_an_array() -> None:
    np.testing.assert_array_equal(gm.ops.matmul([[1.0, 2.0]], [3.0, 4.0]), [11.0])
    for ragged in ([[1.0], [2.0, 3.0]], np.float64(3), None):
        with pytest.raises(ValueError):  # noqa: PT011
            gm.ops.matmul(ragged, np.ones((2, 2)))


def test_subclasses_and_objects_with_rules_of_their_own() -> None:
    a = np.arange(4.0).reshape(2, 2)
    assert type(gm.ops.matmul(a.view(np.matrix), a)) is np.matrix
    masked = np.ma.masked_array(a, a == 3)
    assert type(gm.ops.matmul(masked, a)) is type(np.matmul(masked, a))

    class Recorder:
        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
            return ufunc.__name__, method, keywords

    assert gm.ops.matmul(a, Recorder()) == ("matmul", "__call__", {})
    assert gm.ops.matmul(a, a, out=Recorder())[0] == "matmul"

    class Refuses:
        __array_ufunc__ = None

    with pytest.raises(TypeError):
        gm.ops.matmul(Refuses(), a)


def test_parameters_are_read_and_written_as_arrays() -> None:
    net = gm.Network([gm.Dense(5, 3)], rng=0)
    weight = net[0].weight
    x = integers(rng, (4, 5), np.float32)
    got = gm.ops.matmul(x, weight.T)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, x @ np.asarray(weight).T, rtol=1e-5)
    square = integers(rng, (3, 3), np.float32)
    want = np.matmul(square, np.asarray(weight))
    assert gm.ops.matmul(square, weight, out=weight) is weight
    np.testing.assert_allclose(net[0].weight, want, rtol=1e-5)
