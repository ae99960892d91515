"""`gm.ops.conv2d` and its backward: against loops in float64, exact on integers, the same bits for any number
of threads, and what they refuse."""

from functools import cache
from typing import Any

import image_reference
import numpy as np
import pytest
import reference
from image_cases import USUAL, Convolution, channels_first, convolutions, layouts_in_memory
from image_reference import Window
from matrices import DTYPES, lapack_ratio
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
pytestmark = pytest.mark.usefixtures("direct_convolutions")


def small_integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Within +-8: a sum of k < 2**18 products stays under 2**24, so every float32 partial sum is exact."""
    return rng.integers(-8, 9, shape).astype(np.float64)


@cache
def normal(case: Convolution, dtype: type) -> tuple[Array, ...]:
    """x, weight, bias and dz rounded to `dtype`."""
    return tuple(array.astype(dtype) for array in case.draw())


@cache
def wanted(case: Convolution, dtype: type) -> tuple[tuple[Array, Array], ...]:
    """(value, sum of the sizes of its terms) of z, dx, dW and db."""
    x, weight, bias, dz = normal(case, dtype)
    window, groups = case.window, case.groups

    def both(function: Any, *arrays: Array, more: tuple[Any, ...]) -> tuple[Array, Array]:
        return function(*arrays, *more), function(*map(abs, arrays), *more)

    flat = dz.astype(np.float64).reshape(-1, len(weight))
    return (
        both(image_reference.conv2d, x, weight, bias, more=(window, groups)),
        both(image_reference.conv2d_input_grad, dz, weight, more=(x.shape, window, groups)),
        both(image_reference.conv2d_weight_grad, dz, x, more=(weight.shape, window, groups)),
        (flat.sum(axis=0), abs(flat).sum(axis=0)),
    )


def computed(case: Convolution, x: Array, weight: Array, bias: Array, dz: Array) -> list[Array]:
    """z, dx, dW and db."""
    z = gm.ops.conv2d(x, weight, bias, **case.options)
    return [z, *gm.ops.conv2d_backward(dz, x, weight, **case.options)]


NAMES = ("z", "dx", "dweight", "dbias")


# -- correctness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(isa: str, dtype: type) -> None:
    """The criterion of the reference BLAS testers, |error| < 16 eps sum |terms|, which holds for chains of at
    most 384. For float64 the reference errs as well, by less."""
    for case in convolutions():
        for name, got, (want, size) in zip(
            NAMES, computed(case, *normal(case, dtype)), wanted(case, dtype), strict=True
        ):
            assert got.dtype == dtype and got.shape == want.shape
            assert lapack_ratio(got, want, size) < 16, f"{name} of {case}"


@pytest.mark.parametrize("case", USUAL, ids=lambda case: f"{case.shape}-{case.filters}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_in_use(isa: str, dtype: type, case: Convolution) -> None:
    for name, got, (want, size) in zip(
        NAMES, computed(case, *normal(case, dtype)), wanted(case, dtype), strict=True
    ):
        assert lapack_ratio(got, want, size) < 16, name


@cache
def of_integers(case: Convolution) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """x, weight, bias and dz, and their z, dx, dW and db."""
    x, weight, bias, dz = case.draw(small_integers)
    window, groups = case.window, case.groups
    results = (
        image_reference.conv2d(x, weight, bias, window, groups),
        image_reference.conv2d_input_grad(dz, weight, x.shape, window, groups),
        image_reference.conv2d_weight_grad(dz, x, weight.shape, window, groups),
        dz.sum(axis=(0, 1, 2)),
    )
    return (x, weight, bias, dz), results


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers(isa: str, dtype: type) -> None:
    """Tolerance 0 shows any tap lost or doubled, which a rounding bound may let pass."""
    for case in [*convolutions(), *USUAL]:
        given, want = of_integers(case)
        arrays = [array.astype(dtype) for array in given]
        for name, got, exact in zip(NAMES, computed(case, *arrays), want, strict=True):
            np.testing.assert_array_equal(got, exact, err_msg=f"{name} of {case}")
        relu = gm.ops.conv2d(*arrays[:3], activation="relu", **case.options)
        np.testing.assert_array_equal(relu, np.maximum(want[0], 0), err_msg=f"{case}")


def test_worked_example(isa: str) -> None:
    """A sliding dot product by hand."""
    A = [[3, 3, 2, 1, 0, 5], [0, 0, 1, 3, 1, 6], [3, 1, 2, 2, 3, 7], [2, 0, 0, 2, 2, 8], [2, 0, 0, 0, 1, 9]]
    k = [[0, 1, 2], [2, 2, 0], [0, 1, 2]]
    x, weight = np.array(A).reshape(1, 5, 6, 1), np.array(k).reshape(1, 3, 3, 1)
    want = [[12, 12, 17, 35], [10, 17, 19, 41], [9, 6, 14, 44]]
    np.testing.assert_array_equal(gm.ops.conv2d(x, weight)[0, :, :, 0], want)


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(isa: str, dtype: type, name: str) -> None:
    """No activation here is steeper than 1.13 (gelu) or its slope; f itself is within 4 units of the last
    place, of values that are near 1 at the least where it subtracts."""
    form = reference.ACTIVATIONS[name]
    for case in [USUAL[0], USUAL[9], *convolutions()[:6]]:
        x, weight, bias, _ = normal(case, dtype)
        want, size = wanted(case, dtype)[0]
        got = gm.ops.conv2d(x, weight, bias, activation=name, **case.options)
        h = form.f(want, form.slope)
        bound = np.finfo(dtype).eps * (1.13 * 16 * size + 4 * np.maximum(abs(h), 1))
        assert (abs(got - h) <= bound).all()


def test_slope(isa: str) -> None:
    x, weight, bias, _ = normal(USUAL[0], np.float64)
    z = gm.ops.conv2d(x, weight, bias)
    np.testing.assert_allclose(
        gm.ops.conv2d(x, weight, bias, activation="leaky_relu", slope=0.3), np.where(z > 0, z, 0.3 * z)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_propagate(isa: str, dtype: type) -> None:
    """To every place that sees them, and to no other."""
    for case in [*convolutions()[:12], USUAL[0], USUAL[9]]:
        x, weight, _, _ = (array.astype(dtype) for array in case.draw(small_integers))
        x[0, -1, 0, 0] = np.nan
        x[0, 0, -1, -1] = np.inf
        with np.errstate(invalid="ignore"):
            want = image_reference.conv2d(x, weight, None, case.window, case.groups)
            got = gm.ops.conv2d(x, weight, **case.options)
        np.testing.assert_array_equal(got, want, err_msg=f"{case}")


def test_an_empty_batch() -> None:
    x, weight, bias = np.empty((0, 5, 6, 4)), np.ones((8, 3, 3, 2)), np.ones(8)
    assert gm.ops.conv2d(x, weight, bias, groups=2).shape == (0, 3, 4, 8)
    dx, dweight, dbias = gm.ops.conv2d_backward(np.empty((0, 3, 4, 8)), x, weight, groups=2)
    assert dx.shape == x.shape
    assert not dweight.any() and not dbias.any()


# -- threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", USUAL, ids=lambda case: f"{case.shape}-{case.filters}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(isa: str, dtype: type, case: Convolution) -> None:
    arrays = [array.astype(dtype) for array in case._replace(shape=(5, *case.shape[1:])).draw()]
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            results.add(tuple(array.tobytes() for array in computed(case, *arrays)))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


# -- arrays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [USUAL[0], USUAL[8], *convolutions()[:9]])
def test_channels_first_gives_the_same_bits(case: Convolution) -> None:
    x, weight, bias, dz = normal(case, np.float32)
    z, *grads = computed(case, x, weight, bias, dz)
    options = case.options | {"layout": "channels_first"}
    got = gm.ops.conv2d(channels_first(x), weight, bias, **options)
    dx, *rest = gm.ops.conv2d_backward(channels_first(dz), channels_first(x), weight, **options)
    np.testing.assert_array_equal(got, channels_first(z))
    np.testing.assert_array_equal(dx, channels_first(grads[0]))
    for a, b in zip(rest, grads[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    out = np.empty_like(channels_first(z))
    assert gm.ops.conv2d(channels_first(x), weight, bias, out=out, **options) is out
    np.testing.assert_array_equal(out, channels_first(z))


def test_any_strides_types_and_out() -> None:
    case = convolutions()[4]
    x, weight, bias, dz = normal(case, np.float32)
    want = computed(case, x, weight, bias, dz)
    for arrays in zip(*map(layouts_in_memory, (x, weight, bias[None], dz)), strict=True):
        got = computed(case, arrays[0], arrays[1], arrays[2][0], arrays[3])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    for out in layouts_in_memory(np.empty_like(want[0])):
        if out.flags.writeable:
            assert gm.ops.conv2d(x, weight, bias, out=out, **case.options) is out
            np.testing.assert_array_equal(out, want[0])
    mixed = gm.ops.conv2d(x, weight.astype(np.float64), bias, **case.options)
    assert mixed.dtype == np.float64
    assert gm.ops.conv2d(x.astype(np.float16), weight, **case.options).dtype == np.float64
    whole = np.rint(x).astype(np.int64)
    np.testing.assert_array_equal(
        gm.ops.conv2d(whole, weight, **case.options),
        gm.ops.conv2d(whole.astype(np.float64), weight, **case.options),
    )


def test_out_may_overlap() -> None:
    """A convolution that keeps the shape, into its own input."""
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, 6, 7, 4)), rng.standard_normal((4, 3, 3, 4))
    want = gm.ops.conv2d(x, weight, padding="same")
    assert gm.ops.conv2d(x, weight, padding="same", out=x) is x
    np.testing.assert_array_equal(x, want)


# -- PyTorch -------------------------------------------------------------------------------------------------


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for case in [*convolutions(), *USUAL]:
        x, weight, bias, dz = case.draw()
        top, bottom, left, right = case.window.padding
        inputs = [
            torch.tensor(channels_first(a) if a.ndim == 4 else a, requires_grad=True)
            for a in (x, weight, bias)
        ]
        padded = torch.nn.functional.pad(inputs[0], (left, right, top, bottom))
        z = torch.nn.functional.conv2d(
            padded, inputs[1], inputs[2], case.stride, 0, case.dilation, case.groups
        )
        z.backward(torch.tensor(channels_first(dz)))
        options = case.options | {"layout": "channels_first"}
        got = gm.ops.conv2d(channels_first(x), weight, bias, **options)
        dx, dweight, dbias = gm.ops.conv2d_backward(channels_first(dz), channels_first(x), weight, **options)
        want = [z.detach().numpy(), *(tensor.grad.numpy() for tensor in inputs)]
        for a, b in zip((got, dx, channels_first(dweight), dbias), want, strict=True):
            # Two sums of up to some thousand terms of size one, in float64.
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11, err_msg=f"{case}")


def test_same_is_pytorchs_where_the_stride_is_one() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for kernel in [(1, 1), (2, 3), (3, 3), (4, 5), (6, 2)]:
        for dilation in (1, 2) if kernel[0] % 2 and kernel[1] % 2 else (2,):  # PyTorch warns of even ones
            x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, *kernel, 3))
            want = torch.nn.functional.conv2d(
                torch.tensor(x),
                torch.tensor(channels_first(weight)),
                padding="same",
                dilation=dilation,
            )
            got = gm.ops.conv2d(x, weight, padding="same", dilation=dilation, layout="channels_first")
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-12, atol=1e-12)


# -- bad input -----------------------------------------------------------------------------------------------

X, W = np.ones((2, 5, 6, 4), np.float32), np.ones((8, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"stride": 0}, ValueError, "conv2d: stride is 0; it must be at least 1"),
        ({"stride": (1, -2)}, ValueError, "conv2d: stride is (1, -2)"),
        ({"stride": 2**31}, ValueError, "conv2d: stride is 2147483648"),
        ({"stride": (1, 2, 3)}, TypeError, "conv2d: stride must be an integer or 2 of them"),
        ({"stride": 1.5}, TypeError, "conv2d: stride must be an integer"),
        ({"stride": True}, TypeError, "conv2d: stride must be an integer"),
        ({"dilation": 0}, ValueError, "conv2d: dilation is 0"),
        ({"dilation": 3}, gm.ShapeError, "conv2d: kernel (3, 3) with dilation (3, 3) spans (7, 7) pixels"),
        ({"padding": -1}, ValueError, "conv2d: padding is -1; it must not be negative"),
        ({"padding": (0, 0, 0, -1)}, ValueError, "conv2d: padding is (0, 0, 0, -1)"),
        ({"padding": 2**31}, ValueError, "conv2d: padding is 2147483648"),
        ({"padding": "full"}, ValueError, "conv2d: padding is 'full'; known: same, valid"),
        ({"padding": (1, 2, 3)}, TypeError, "conv2d: padding must be an integer or 2 or 4 of them"),
        ({"padding": 2**31 - 1}, gm.ShapeError, "overflows 64 bits"),
        ({"groups": 3}, ValueError, "groups is 3, which does not divide 4 input and 8 output channels"),
        ({"groups": 0}, ValueError, "conv2d: groups is 0; it must be at least 1"),
        ({"groups": 2}, gm.ShapeError, "conv2d: x has 4 channels, weight (8, 3, 3, 4) with groups=2 takes 8"),
        ({"groups": 1.0}, TypeError, "conv2d: groups must be an integer, not 1.0"),
        ({"x": X[..., :3]}, gm.ShapeError, "x has 3 channels, weight (8, 3, 3, 4) with groups=1 takes 4"),
        ({"x": X[0]}, gm.ShapeError, "conv2d: x has shape (5, 6, 4); it must be (N, H, W, C)"),
        ({"x": X[:, :2]}, gm.ShapeError, "kernel (3, 3) spans (3, 3) pixels, the padded image (2, 6)"),
        ({"x": X[:, :0]}, gm.ShapeError, "conv2d: x has shape (2, 0, 6, 4)"),
        ({"weight": W[0]}, gm.ShapeError, "conv2d: weight has shape (3, 3, 4); it must be (n_out, k_h, k_w"),
        ({"weight": W[:0]}, gm.ShapeError, "conv2d: weight has shape (0, 3, 3, 4)"),
        ({"bias": np.ones(7)}, gm.ShapeError, "conv2d: bias has shape (7,), not (8,)"),
        ({"bias": np.ones((8, 1))}, gm.ShapeError, "conv2d: bias has shape (8, 1), not (8,)"),
        ({"x": X.astype(complex)}, gm.DTypeError, "conv2d: x has dtype complex128"),
        ({"activation": "softmax"}, ValueError, "unknown activation 'softmax'"),
        ({"slope": 0.1}, ValueError, "identity takes no slope"),
        ({"layout": "NCHW"}, ValueError, "layout 'NCHW'; known: channels_last, channels_first"),
        ({"layout": "channels_first"}, gm.ShapeError, "conv2d: x has 5 channels, weight (8, 3, 3, 4)"),
        ({"out": np.empty((2, 3, 4, 7), np.float32)}, gm.ShapeError, "conv2d: out has shape (2, 3, 4, 7)"),
        ({"out": np.empty((2, 3, 4, 8))}, gm.DTypeError, "conv2d: out must be an array of float32"),
        ({"out": np.broadcast_to(np.float32(0), (2, 3, 4, 8))}, ValueError, "conv2d: out is read-only"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], error: type, message: str) -> None:
    arguments: dict[str, Any] = {"x": X, "weight": W} | change
    with pytest.raises(error) as caught:
        gm.ops.conv2d(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 4, 7), (2, 4, 3, 8), (1, 3, 4, 8), (2, 3, 32)])
def test_a_gradient_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(gm.ShapeError, match=r"conv2d_backward: dz has shape .*, not \(2, 3, 4, 8\)"):
        gm.ops.conv2d_backward(np.ones(shape), X, W)


def test_nothing_is_written_before_the_checks() -> None:
    out = np.full((2, 3, 4, 8), 7, np.float32)
    with pytest.raises(gm.ShapeError):
        gm.ops.conv2d(X, W, np.ones(3), out=out)
    assert (out == 7).all()


def test_sizes_of_windows() -> None:
    """The formula of the docstring, and TensorFlow's for "same"."""
    for size in range(1, 12):
        for stride in range(1, 5):
            for kernel in range(1, 6):
                x, weight = np.ones((1, size, 3, 1)), np.ones((1, kernel, 1, 1))
                got = gm.ops.conv2d(x, weight, stride=stride, padding="same")
                assert got.shape == (1, -(-size // stride), -(-3 // stride), 1)
                window = Window((kernel, 1), (stride, stride))
                sides = image_reference.same((size, 3), (kernel, 1), (stride, stride), (1, 1))
                want = image_reference.conv2d(x, weight, None, window._replace(padding=sides))
                np.testing.assert_array_equal(got, want)
