"""Pooling in `gm.ops`: against loops in float64, with ties, NaN and padding, for any number of threads."""

from typing import Any

import image_reference
import numpy as np
import pytest
from image_cases import Pooling, channels_first, layouts_in_memory, poolings
from matrices import DTYPES
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]


def tied(case: Pooling, dtype: type) -> tuple[Array, Array]:
    """x of few values, so that most windows hold equal ones, and dy of small integers."""
    rng = np.random.default_rng(case.seed)
    x, dy = case.draw()
    return rng.integers(-2, 3, x.shape).astype(dtype), rng.integers(-8, 9, dy.shape).astype(dtype)


# -- maxima --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_maxima(isa: str, dtype: type) -> None:
    """No arithmetic: the values themselves."""
    for case in poolings():
        x = case.draw()[0].astype(dtype)
        want, _ = image_reference.max_pool2d(x, case.window)
        got = gm.ops.max_pool2d(x, **case.options)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want, err_msg=f"{case}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_maxima(isa: str, dtype: type) -> None:
    """Of equal pixels the first gets it, so sums of integers are exact."""
    for case in poolings():
        x, dy = tied(case, dtype)
        want = image_reference.max_pool2d_backward(dy, x, case.window)
        got = gm.ops.max_pool2d_backward(dy, x, **case.options)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want, err_msg=f"{case}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_maxima_of_special_values(isa: str, dtype: type) -> None:
    """NaN comes through wherever in a window it stands; -inf is no padding."""
    rng = np.random.default_rng(2)
    for case in poolings():
        x = case.draw()[0].astype(dtype)
        x[rng.random(x.shape) < 0.2] = np.nan
        x[rng.random(x.shape) < 0.1] = np.inf
        x[rng.random(x.shape) < 0.3] = -np.inf
        want, _ = image_reference.max_pool2d(x, case.window)
        np.testing.assert_array_equal(gm.ops.max_pool2d(x, **case.options), want, err_msg=f"{case}")
        low = np.full_like(x, -np.inf)
        np.testing.assert_array_equal(gm.ops.max_pool2d(low, **case.options), np.full_like(want, -np.inf))
        dx = gm.ops.max_pool2d_backward(np.ones(want.shape, dtype), low, **case.options)
        np.testing.assert_array_equal(
            dx, image_reference.max_pool2d_backward(np.ones(want.shape), low, case.window)
        )


# -- means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_means(isa: str, dtype: type, count_padding: bool) -> None:
    """A sum of k terms in one chain errs by at most k eps sum |terms|, its division by half an eps more."""
    for case in poolings():
        x, dy = (array.astype(dtype) for array in case.draw())
        window, taps = case.window, case.kernel[0] * case.kernel[1] + 1
        eps = np.finfo(dtype).eps
        got = gm.ops.avg_pool2d(x, count_padding=count_padding, **case.options)
        wide = x.astype(np.float64)
        size = image_reference.avg_pool2d(abs(wide), window, count_padding)
        want = image_reference.avg_pool2d(wide, window, count_padding)
        assert got.dtype == dtype
        assert (abs(got - want) <= taps * eps * size).all(), f"{case}"
        dx = gm.ops.avg_pool2d_backward(dy, x.shape, count_padding=count_padding, **case.options)
        wide = dy.astype(np.float64)
        size = image_reference.avg_pool2d_backward(abs(wide), x.shape, window, count_padding)
        want = image_reference.avg_pool2d_backward(wide, x.shape, window, count_padding)
        assert dx.dtype == dtype
        assert (abs(dx - want) <= taps * eps * size).all(), f"{case}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_means_of_powers_of_two_are_exact(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    for kernel in [(1, 2), (2, 2), (4, 2), (4, 4)]:
        x = rng.integers(-64, 65, (3, 9, 8, 17)).astype(dtype)
        window = image_reference.Window(kernel, kernel)
        want = image_reference.avg_pool2d(x, window, True)
        np.testing.assert_array_equal(gm.ops.avg_pool2d(x, kernel), want)
        dy = rng.integers(-64, 65, want.shape).astype(dtype)
        np.testing.assert_array_equal(
            gm.ops.avg_pool2d_backward(dy, x.shape, kernel),
            image_reference.avg_pool2d_backward(dy, x.shape, window, True),
        )


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 7, 7, 65), (2, 5, 8, 16), (4, 28, 28, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_means_over_all_pixels(isa: str, dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((shape[0], shape[3])).astype(dtype)
    wide, pixels = x.astype(np.float64), shape[1] * shape[2]
    bound = (pixels + 1) * np.finfo(dtype).eps * abs(wide).mean(axis=(1, 2))
    assert (abs(gm.ops.global_avg_pool2d(x) - wide.mean(axis=(1, 2))) <= bound).all()
    first = gm.ops.global_avg_pool2d(channels_first(x), layout="channels_first")
    np.testing.assert_array_equal(first, gm.ops.global_avg_pool2d(x))
    dx = gm.ops.global_avg_pool2d_backward(dy, shape)
    np.testing.assert_allclose(
        dx, np.broadcast_to(dy[:, None, None] / pixels, shape), rtol=2 * np.finfo(dtype).eps
    )
    turned = (shape[0], shape[3], shape[1], shape[2])
    np.testing.assert_array_equal(
        gm.ops.global_avg_pool2d_backward(dy, turned, layout="channels_first"), channels_first(dx)
    )


# -- all of them ---------------------------------------------------------------------------------------------


def computed(case: Pooling, x: Array, dy: Array, **more: Any) -> list[Array]:
    """Every function of a pooling."""
    options = case.options | more
    return [
        gm.ops.max_pool2d(x, **options),
        gm.ops.max_pool2d_backward(dy, x, **options),
        gm.ops.avg_pool2d(x, **options),
        gm.ops.avg_pool2d_backward(dy, x.shape, **options),
        gm.ops.avg_pool2d(x, count_padding=False, **options),
        gm.ops.avg_pool2d_backward(dy, x.shape, count_padding=False, **options),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(isa: str, dtype: type) -> None:
    for case in [*poolings()[:8], *poolings()[-4:]]:
        x, dy = (array.astype(dtype) for array in case._replace(shape=(5, *case.shape[1:])).draw())
        results = set()
        try:
            for count in (1, 2, 3, 7):
                gm.set_num_threads(count)
                results.add(tuple(array.tobytes() for array in computed(case, x, dy)))
        finally:
            gm.set_num_threads(None)
        assert len(results) == 1, f"{case}"


def test_channels_first_gives_the_same_bits() -> None:
    for case in poolings():
        x, dy = (array.astype(np.float32) for array in case.draw())
        got = computed(case, channels_first(x), channels_first(dy), layout="channels_first")
        for a, b in zip(got, computed(case, x, dy), strict=True):
            np.testing.assert_array_equal(a, channels_first(b), err_msg=f"{case}")


def test_any_strides_and_out() -> None:
    case = poolings()[1]
    x, dy = (array.astype(np.float32) for array in case.draw())
    want = computed(case, x, dy)
    for a, b in zip(layouts_in_memory(x), layouts_in_memory(dy), strict=True):
        for got, exact in zip(computed(case, a, b), want, strict=True):
            np.testing.assert_array_equal(got, exact)
    for out in layouts_in_memory(np.empty_like(want[0])):
        if out.flags.writeable:
            assert gm.ops.max_pool2d(x, out=out, **case.options) is out
            np.testing.assert_array_equal(out, want[0])
    for out in layouts_in_memory(np.empty_like(x)):
        if out.flags.writeable:
            assert gm.ops.max_pool2d_backward(dy, x, out=out, **case.options) is out
            np.testing.assert_array_equal(out, want[1])
    square = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    expected = gm.ops.max_pool2d(square, 3, 1, 1)
    assert gm.ops.max_pool2d(square, 3, 1, 1, out=square) is square
    np.testing.assert_array_equal(square, expected)


def test_an_empty_batch() -> None:
    x, dy = np.empty((0, 4, 6, 3)), np.empty((0, 2, 3, 3))
    for got, shape in zip(
        computed(Pooling(x.shape, (2, 2), None, 0, 0), x, dy), [dy.shape, x.shape] * 3, strict=True
    ):
        assert got.shape == shape
    assert gm.ops.global_avg_pool2d(x).shape == (0, 3)
    assert gm.ops.global_avg_pool2d_backward(np.empty((0, 3)), x.shape).shape == x.shape


def test_windows_of_many_pixels(isa: str) -> None:
    """As many as a byte can name, at places in the last of them too."""
    rng = np.random.default_rng(6)
    for kernel in [(15, 17), (17, 15), (5, 51)]:
        x = rng.permutation(20 * 53 * 3).reshape(1, 20, 53, 3).astype(np.float64)
        window = image_reference.Window(kernel, kernel)
        want, _ = image_reference.max_pool2d(x, window)
        np.testing.assert_array_equal(gm.ops.max_pool2d(x, kernel), want)
        dy = rng.standard_normal(want.shape)
        np.testing.assert_array_equal(
            gm.ops.max_pool2d_backward(dy, x, kernel), image_reference.max_pool2d_backward(dy, x, window)
        )
    with pytest.raises(ValueError, match=r"max_pool2d: kernel \(16, 16\) has 256 taps; it may have 255"):
        gm.ops.max_pool2d(x, 16)
    with pytest.raises(ValueError, match=r"MaxPool2d: kernel \(16, 16\) has 256 taps; it may have 255"):
        gm.MaxPool2d(16)
    mean = gm.ops.avg_pool2d(x, (20, 53))  # a mean remembers nothing
    np.testing.assert_allclose(mean[0, 0, 0], x.mean(axis=(0, 1, 2)), rtol=1e-12)


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for case in poolings():
        if case.padding == "same" or (isinstance(case.padding, tuple) and len(case.padding) == 4):
            continue  # PyTorch pads both ends alike
        padding = 0 if case.padding == "valid" else case.padding
        x, dy = map(channels_first, case.draw())
        for name in ("max", True, False):
            tensor = torch.tensor(x, requires_grad=True)
            if name == "max":
                y = functional.max_pool2d(tensor, case.kernel, case.stride, padding)
                got = gm.ops.max_pool2d(x, layout="channels_first", **case.options)
                dx = gm.ops.max_pool2d_backward(dy, x, layout="channels_first", **case.options)
            else:
                y = functional.avg_pool2d(tensor, case.kernel, case.stride, padding, count_include_pad=name)
                more = {"count_padding": name, "layout": "channels_first", **case.options}
                got = gm.ops.avg_pool2d(x, **more)
                dx = gm.ops.avg_pool2d_backward(dy, x.shape, **more)
            y.backward(torch.tensor(dy))
            np.testing.assert_allclose(got, y.detach().numpy(), rtol=1e-13, atol=1e-13, err_msg=f"{case}")
            np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-13, atol=1e-13, err_msg=f"{case}")


# -- bad input -----------------------------------------------------------------------------------------------

X = np.ones((2, 5, 6, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kernel": 0}, ValueError, "kernel is 0; it must be at least 1"),
        ({"kernel": (2, 2.0)}, TypeError, "kernel must be an integer or 2 of them"),
        ({"kernel": 6}, gm.ShapeError, "kernel (6, 6) spans (6, 6) pixels, the padded image (5, 6)"),
        ({"stride": 0}, ValueError, "stride is 0"),
        ({"padding": 2}, ValueError, "padding 2 is more than half the kernel (2, 2)"),
        ({"padding": (0, 0, 0, 2)}, ValueError, "padding (0, 0, 0, 2) is more than half the kernel (2, 2)"),
        ({"padding": -1}, ValueError, "padding is -1"),
        ({"x": X[0]}, gm.ShapeError, "x has shape (5, 6, 4); it must be (N, H, W, C)"),
        ({"x": X[..., :0]}, gm.ShapeError, "x has shape (2, 5, 6, 0)"),
        ({"x": X.astype("U1")}, gm.DTypeError, "x has dtype <U1"),
        ({"layout": None}, ValueError, "layout None; known: channels_last, channels_first"),
        ({"out": np.empty((2, 2, 3, 5), np.float32)}, gm.ShapeError, "out has shape (2, 2, 3, 5)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_bad_input(op: str, change: dict[str, Any], error: type, message: str) -> None:
    arguments: dict[str, Any] = {"x": X, "kernel": 2} | change
    with pytest.raises(error) as caught:
        getattr(gm.ops, op)(**arguments)
    assert message in str(caught.value) and op in str(caught.value)


def test_gradients_that_do_not_fit() -> None:
    dy = np.ones((2, 2, 3, 5))
    with pytest.raises(gm.ShapeError, match=r"max_pool2d_backward: dy has shape .*, not \(2, 2, 3, 4\)"):
        gm.ops.max_pool2d_backward(dy, X, 2)
    with pytest.raises(gm.ShapeError, match=r"avg_pool2d_backward: dy has shape .*, not \(2, 2, 3, 4\)"):
        gm.ops.avg_pool2d_backward(dy, X.shape, 2)
    with pytest.raises(gm.ShapeError, match=r"global_avg_pool2d_backward: dy has shape .*, not \(2, 4\)"):
        gm.ops.global_avg_pool2d_backward(dy, X.shape)
    for shape, error in [
        ((2, 5, 6), TypeError),
        ((2, 0, 6, 4), gm.ShapeError),
        ((2, 5, 2**62, 4), gm.ShapeError),
    ]:
        with pytest.raises(error, match="avg_pool2d_backward: shape"):
            gm.ops.avg_pool2d_backward(dy, shape, 2)
