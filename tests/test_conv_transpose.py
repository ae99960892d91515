"""Transposed convolution, as function and as layer: against loops in float64, exact on integers, the same
bits for any number of threads, gradients, and what is refused."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import image_reference
import numpy as np
import pytest
import reference
from differences import check_network, points
from image_cases import USUAL, Convolution, channels_first, convolutions, layouts_in_memory
from matrices import DTYPES, lapack_ratio
from numpy.typing import NDArray

import gemmule as gm

# As plain sums; test_winograd.py has the bound of Winograd's.
pytestmark = pytest.mark.usefixtures("direct_convolutions")

Array = NDArray[Any]
NAMES = ("y", "dx", "dweight", "dbias")


def small_integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Within +-8: a sum of k < 2**18 products stays under 2**24, so every float32 partial sum is exact."""
    return rng.integers(-8, 9, shape).astype(np.float64)


def options(case: Convolution) -> dict[str, Any]:
    """What goes back from the places of a convolution to its image: the pixels that its window does not reach
    are the output's padding."""
    window, image = case.window, case.shape[1:3]
    places = window.places(image)
    span = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
    cut = window.padding[0] + window.padding[1], window.padding[2] + window.padding[3]
    reached = [(places[i] - 1) * window.stride[i] - cut[i] + span[i] for i in (0, 1)]
    extra = image[0] - reached[0], image[1] - reached[1]
    return case.options | {"padding": window.padding, "output_padding": extra}


@cache
def drawn(case: Convolution, make: Any = None) -> tuple[Array, Array, Array, Array]:
    """x, weight, bias and dy of the transposed convolution."""
    image, weight, _, places = case.draw(make)
    rng = np.random.default_rng(case.seed + 1000)
    bias = make(rng, image.shape[3:]) if make else rng.standard_normal(image.shape[3])
    return places, weight, bias, image


def expected(case: Convolution, x: Array, weight: Array, bias: Array, dy: Array) -> tuple[Array, ...]:
    """y, dx, dW and db, by the loops of the convolution."""
    window, groups = case.window, case.groups
    wide = [array.astype(np.float64) for array in (x, weight, bias, dy)]
    x, weight, bias, dy = wide
    return (
        image_reference.conv2d_input_grad(x, weight, case.shape, window, groups) + bias,
        image_reference.conv2d(dy, weight, None, window, groups),
        image_reference.conv2d_weight_grad(x, dy, weight.shape, window, groups),
        dy.sum(axis=(0, 1, 2)),
    )


@cache
def wanted(case: Convolution, dtype: type) -> list[tuple[Array, Array]]:
    """(value, sum of the sizes of its terms) of each."""
    arrays = [array.astype(dtype) for array in drawn(case)]
    sizes = expected(case, *(abs(array) for array in arrays))
    return list(zip(expected(case, *arrays), sizes, strict=True))


def computed(
    case: Convolution, x: Array, weight: Array, bias: Array, dy: Array, layout: str = "channels_last"
) -> list[Array]:
    given = options(case) | {"layout": layout}
    y = gm.ops.conv_transpose2d(x, weight, bias, **given)
    return [y, *gm.ops.conv_transpose2d_backward(dy, x, weight, **given)]


# -- the function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(isa: str, dtype: type) -> None:
    """|error| < 16 eps sum |terms|, the criterion of the reference BLAS testers."""
    for case in [*convolutions(), *USUAL]:
        arrays = [array.astype(dtype) for array in drawn(case)]
        for name, got, (want, size) in zip(NAMES, computed(case, *arrays), wanted(case, dtype), strict=True):
            assert got.dtype == dtype and got.shape == want.shape
            assert lapack_ratio(got, want, size) < 16, f"{name} of {case}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers(isa: str, dtype: type) -> None:
    for case in convolutions():
        given = drawn(case, small_integers)
        arrays = [array.astype(dtype) for array in given]
        want = expected(case, *given)
        for name, got, exact in zip(NAMES, computed(case, *arrays), want, strict=True):
            np.testing.assert_array_equal(got, exact, err_msg=f"{name} of {case}")
        relu = gm.ops.conv_transpose2d(*arrays[:3], activation="relu", **options(case))
        np.testing.assert_array_equal(relu, np.maximum(want[0], 0), err_msg=f"{case}")


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(isa: str, dtype: type, name: str) -> None:
    """Pixels that no window meets too, whose z is the bias. The bound is that of convolution."""
    form = reference.ACTIVATIONS[name]
    apart = Convolution((2, 9, 8, 3), (2, 2, 2, 3), (5, 3), (1, 1), 0, 1, 103)
    for case in [USUAL[8], apart, *convolutions()[:6]]:
        x, weight, bias, _ = (array.astype(dtype) for array in drawn(case))
        want, size = wanted(case, dtype)[0]
        for row, z in ((bias, want), (None, want - bias.astype(np.float64))):
            got = gm.ops.conv_transpose2d(x, weight, row, activation=name, **options(case))
            h = form.f(z, form.slope)
            bound = np.finfo(dtype).eps * (1.13 * 16 * size + 4 * np.maximum(abs(h), 1))
            assert (abs(got - h) <= bound).all(), f"{case}"


def test_sizes() -> None:
    x = np.ones((1, 5, 6, 2))
    for given, size in [
        ({}, (7, 8)),
        ({"stride": 2}, (11, 13)),
        ({"stride": 2, "padding": 1}, (9, 11)),
        ({"stride": 2, "padding": 1, "output_padding": 1}, (10, 12)),
        ({"stride": (2, 3), "output_padding": (0, 2)}, (11, 20)),
        ({"padding": (1, 0, 2, 1)}, (6, 5)),
        ({"dilation": 3}, (11, 12)),
        ({"padding": "valid"}, (7, 8)),
        ({"padding": "same"}, (5, 6)),
        ({"padding": "same", "stride": (2, 4)}, (10, 24)),
    ]:
        y = gm.ops.conv_transpose2d(x, np.ones((2, 3, 3, 4)), **given)
        assert y.shape == (1, *size, 4)
        layer = gm.ConvTranspose2d(2, 4, 3, **given)
        assert layer.output_shape((5, 6, 2)) == (*size, 4)
        back = {name: value for name, value in given.items() if name != "output_padding"}
        assert gm.Conv2d(4, 2, 3, **back).output_shape((*size, 4)) == (5, 6, 2)


def test_worked_example(isa: str) -> None:
    """Every pixel adds the filter, times itself: where two meet, their sum."""
    x = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
    weight = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    want = [[1, 2, 5, 4, 6], [4, 5, 14, 10, 12], [10, 14, 36, 24, 30], [12, 15, 34, 20, 24],
            [21, 24, 55, 32, 36]]  # fmt: skip
    np.testing.assert_array_equal(gm.ops.conv_transpose2d(x, weight, stride=2)[0, :, :, 0], want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(isa: str, dtype: type) -> None:
    for case in [*convolutions()[:8], *USUAL[:3], USUAL[8]]:
        wider = case._replace(shape=(5, *case.shape[1:]))
        arrays = [array.astype(dtype) for array in drawn(wider)]
        results = set()
        try:
            for count in (1, 2, 3, 7):
                gm.set_num_threads(count)
                results.add(tuple(array.tobytes() for array in computed(wider, *arrays)))
        finally:
            gm.set_num_threads(None)
        assert len(results) == 1, f"{case}"


def test_channels_first_gives_the_same_bits() -> None:
    for case in convolutions():
        x, weight, bias, dy = (array.astype(np.float32) for array in drawn(case))
        got = computed(case, channels_first(x), weight, bias, channels_first(dy), layout="channels_first")
        want = computed(case, x, weight, bias, dy)
        for i in (0, 1):
            np.testing.assert_array_equal(got[i], channels_first(want[i]))
        for i in (2, 3):
            np.testing.assert_array_equal(got[i], want[i])


def test_any_strides_and_out() -> None:
    case = USUAL[8]._replace(shape=(2, 8, 8, 16), filters=(8, 3, 3, 16))
    x, weight, bias, dy = (array.astype(np.float32) for array in drawn(case))
    want = computed(case, x, weight, bias, dy)
    for a, b, c in zip(*map(layouts_in_memory, (x, weight, dy)), strict=True):
        for got, exact in zip(computed(case, a, b, bias, c), want, strict=True):
            np.testing.assert_array_equal(got, exact)
    for out in layouts_in_memory(np.empty_like(want[0])):
        if out.flags.writeable:
            assert gm.ops.conv_transpose2d(x, weight, bias, out=out, **options(case)) is out
            np.testing.assert_array_equal(out, want[0])
    square = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    filters = np.random.default_rng(1).standard_normal((3, 3, 3, 3))
    expected_square = gm.ops.conv_transpose2d(square, filters, padding=1)
    assert gm.ops.conv_transpose2d(square, filters, padding=1, out=square) is square
    np.testing.assert_array_equal(square, expected_square)


def test_an_empty_batch() -> None:
    x, weight = np.empty((0, 4, 6, 3)), np.ones((3, 2, 2, 5))
    assert gm.ops.conv_transpose2d(x, weight, stride=2).shape == (0, 8, 12, 5)
    dx, dweight, dbias = gm.ops.conv_transpose2d_backward(np.empty((0, 8, 12, 5)), x, weight, stride=2)
    assert dx.shape == x.shape and not dweight.any() and not dbias.any()


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for case in convolutions():
        given = options(case)
        top, bottom, left, right = given["padding"]
        if (top, left) != (bottom, right):
            continue  # PyTorch cuts off both ends alike
        x, weight, bias, dy = drawn(case)
        tensors = [
            torch.tensor(array, requires_grad=True)
            for array in (channels_first(x), channels_first(weight), bias)
        ]
        y = torch.nn.functional.conv_transpose2d(
            *tensors, given["stride"], (top, left), given["output_padding"], case.groups, given["dilation"]
        )
        y.backward(torch.tensor(channels_first(dy)))
        want = [y.detach(), *(tensor.grad for tensor in tensors)]
        got = computed(case, channels_first(x), weight, bias, channels_first(dy), layout="channels_first")
        got[2] = channels_first(got[2])
        for name, a, b in zip(NAMES, got, want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-11, atol=1e-11, err_msg=f"{name} of {case}")


# -- the layer -----------------------------------------------------------------------------------------------


def network(shape: tuple[int, ...], *layers: gm.Layer, **more: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **more})


@pytest.mark.parametrize(
    "layer",
    [
        lambda: gm.ConvTranspose2d(2, 3, 3, "tanh"),
        lambda: gm.ConvTranspose2d(2, 3, (2, 3), "gelu", stride=2, padding=1, output_padding=(1, 0)),
        lambda: gm.ConvTranspose2d(2, 4, 3, "silu", padding="same", dilation=2, groups=2),
        lambda: gm.ConvTranspose2d(2, 4, 2, "softplus", stride=3, groups=2, bias=False),
        lambda: gm.ConvTranspose2d(2, 3, 1, "sigmoid", slope=1.5),
        lambda: gm.ConvTranspose2d(2, 3, 1, "relu", stride=2, output_padding=1, bias_init=[0.1, -0.2, 0.3]),
        lambda: gm.ConvTranspose2d(2, 3, 2, "softmax", stride=2, padding="same"),
        lambda: gm.ConvTranspose2d(2, 3, 2, (lambda z: 2 * np.tanh(z), lambda z: 2 * (1 - np.tanh(z) ** 2))),
        lambda: gm.ConvTranspose2d(2, 2, 3, padding=(1, 0, 0, 2), groups=2),
        lambda: gm.Residual(gm.ConvTranspose2d(2, 2, 3, padding=1, bias_init=[0.3, 0.1]), activation="tanh"),
        lambda: gm.Residual(
            gm.ConvTranspose2d(2, 2, 1, stride=2, output_padding=1, bias_init=[0.3, 0.1]),
            shortcut=gm.Upsample(2, mode="bilinear"),
            activation="elu",
        ),
    ],
)
def test_gradients(isa: str, layer: Callable[[], gm.Layer]) -> None:
    """Each between two others, so that its own input's gradient is needed too."""
    net = network((3, 4, 2), gm.Conv2d(2, 2, 1, "tanh"), layer(), gm.Flatten(), gm.Dense(None, 3))
    check_network(net, points((4, 3, 4, 2)), "cross_entropy", np.array([0, 2, 1, 2]))


def test_gradients_of_one_used_twice_and_first(isa: str) -> None:
    shared = gm.ConvTranspose2d(2, 2, 3, "tanh", padding=1)
    net = network((4, 5, 2), shared, shared, gm.GlobalAvgPool2d())
    assert [p.shape for p in net.parameters()] == [(2, 3, 3, 2), (2,)]
    check_network(net, points((3, 4, 5, 2)), "mse", points((3, 2), seed=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_layer_is_the_function(isa: str, dtype: str, tmp_path: Path) -> None:
    net = network(
        (5, 4, 3),
        gm.ConvTranspose2d(None, 8, 3, "relu", stride=2, output_padding=1, bias_init=np.arange(8) / 8),
        gm.ConvTranspose2d(8, 16, (2, 3), "elu", padding=(0, 1, 1, 0), dilation=2, groups=4, name="up"),
        dtype=dtype,
    )
    x = np.random.default_rng(1).standard_normal((7, 5, 4, 3)).astype(dtype)
    first, second = net[0], net[1]
    assert first.n_in == 3 and first.weight.shape == (3, 3, 3, 8) and first.output_padding == (1, 1)
    h = gm.ops.conv_transpose2d(x, first.weight, first.bias, 2, output_padding=1, activation="relu")
    want = gm.ops.conv_transpose2d(
        h, second.weight, second.bias, padding=(0, 1, 1, 0), dilation=2, groups=4, activation="elu"
    )
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-14}
    for got in (net.predict(x), net.forward(x)):
        np.testing.assert_allclose(got, want, **tolerance)
    net.save(tmp_path / "net.safetensors")
    loaded = gm.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert repr(loaded) == repr(net)
    turned = network((3, 5, 4), *net.layers, dtype=dtype, layout="channels_first")
    np.testing.assert_array_equal(turned.predict(channels_first(x)), channels_first(net.predict(x)))


def test_description(capsys: pytest.CaptureFixture[str]) -> None:
    net = network((5, 4, 2), gm.ConvTranspose2d(2, 6, 3, "relu", stride=2, groups=2, padding="same"))
    assert net.output_shape() == (10, 8, 6)
    assert net.flops() == 2 * 5 * 4 * 2 * 9 * 3
    assert (
        "ConvTranspose2d(2, 6, 3, relu, stride=2, padding='same', groups=2)  (N, 10, 8, 6)" in net.summary()
    )
    assert repr(gm.ConvTranspose2d(2, 3, 4, stride=2, output_padding=(1, 0), bias=False)) == (
        "ConvTranspose2d(2, 3, 4, stride=2, bias=False, output_padding=(1, 0))"
    )
    net.plan(4, training=False)
    assert "+ bias + relu" in capsys.readouterr().out


def test_epilogues_change_rounding_alone(isa: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bias, residual and activation in one pass, as the plan says, and one after the other. Windows of one
    pixel, two apart, leave pixels to the epilogue alone."""
    x = np.random.default_rng(3).standard_normal((3, 5, 4, 8))
    for name in ("relu", "sigmoid"):
        up = gm.ConvTranspose2d(8, 8, 1, stride=2, output_padding=1, bias_init=np.arange(8) - 4)
        net = network((5, 4, 8), gm.Residual(gm.Upsample(2), shortcut=up, activation=name))
        z = gm.ops.conv_transpose2d(x, up.weight, up.bias, 2, output_padding=1) + gm.ops.upsample2d(x, 2)
        want = gm.ops.activation(z, name)
        np.testing.assert_allclose(net.predict(x), want, rtol=1e-13, atol=1e-14)
        net.plan(3, training=False)
        assert f"+ bias + residual + {name}" in capsys.readouterr().out


def test_training(threads: int) -> None:
    """The same weights for any number of threads."""
    x = np.random.default_rng(0).standard_normal((20, 6, 6, 3)).astype(np.float32)
    y = gm.ops.upsample2d(x, 2)

    def fitted() -> bytes:
        net = gm.Network(
            [gm.Conv2d(3, 8, 3, "relu", stride=2, padding=1), gm.ConvTranspose2d(8, 8, 2, "relu", stride=2),
             gm.ConvTranspose2d(8, 3, 4, stride=2, padding=1)], rng=0, input_shape=(6, 6, 3),
        )  # fmt: skip
        history = net.fit(x, y, loss="mse", optimizer=gm.Adam(1e-2), epochs=3, batch_size=8)
        assert history["loss"][-1] < history["loss"][0]
        return b"".join(p.tobytes() for p in net.parameters())

    mine = fitted()
    gm.set_num_threads(1)
    assert fitted() == mine


# -- bad input -----------------------------------------------------------------------------------------------

X, W = np.ones((2, 5, 6, 4), np.float32), np.ones((4, 3, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[0]}, gm.ShapeError, "x has shape (5, 6, 4); it must be (N, H, W, C)"),
        ({"x": X[..., :3]}, gm.ShapeError, "x has 3 channels, weight (4, 3, 3, 2) takes 4"),
        ({"weight": W[0]}, gm.ShapeError, "weight has shape (3, 3, 2); it must be (n_in, k_h, k_w, n_out"),
        ({"weight": W[:, :0]}, gm.ShapeError, "weight has shape (4, 0, 3, 2); it must be"),
        ({"bias": np.ones(4, np.float32)}, gm.ShapeError, "bias has shape (4,), not (2,)"),
        ({"stride": 0}, ValueError, "stride is 0; it must be at least 1"),
        ({"dilation": 0}, ValueError, "dilation is 0"),
        ({"padding": -1}, ValueError, "padding is -1"),
        ({"padding": 5}, gm.ShapeError, "padding (5, 5, 5, 5) leaves none of (5, 6) places' pixels"),
        ({"output_padding": 1}, ValueError, "output_padding is 1; it must be less than the stride (1, 1)"),
        ({"output_padding": -1}, ValueError, "output_padding is -1"),
        ({"output_padding": 1, "padding": "same", "stride": 2}, ValueError, "'same' leaves no choice"),
        ({"groups": 3}, ValueError, "groups is 3, which does not divide 4 input"),
        ({"stride": 2**30}, gm.ShapeError, "overflows 64 bits"),
        ({"activation": "sofmax"}, ValueError, "unknown activation 'sofmax'"),
        ({"layout": None}, ValueError, "layout None; known: channels_last, channels_first"),
        ({"out": np.empty((2, 7, 8, 3), np.float32)}, gm.ShapeError, "out has shape (2, 7, 8, 3)"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        gm.ops.conv_transpose2d(**({"x": X, "weight": W} | change))
    assert message in str(caught.value)


def test_gradients_that_do_not_fit() -> None:
    with pytest.raises(
        gm.ShapeError, match=r"conv_transpose2d_backward: dz has shape .*, not \(2, 7, 8, 2\)"
    ):
        gm.ops.conv_transpose2d_backward(np.ones((2, 7, 8, 3), np.float32), X, W)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.ConvTranspose2d(0, 4, 3), ValueError, "ConvTranspose2d: n_in is 0"),
        (lambda: gm.ConvTranspose2d(3, 4, 3, groups=2), ValueError, "ConvTranspose2d: groups is 2, which"),
        (lambda: gm.ConvTranspose2d(3, 4, 3, stride=2, output_padding=2), ValueError, "output_padding is 2"),
        (lambda: gm.ConvTranspose2d(3, 4, 3, output_padding="same"), TypeError, "output_padding must be"),
        (lambda: gm.ConvTranspose2d(3, 4, 3, padding="full"), ValueError, "padding is 'full'; known: same"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (gm.ConvTranspose2d(3, 4, 3), (8, 8, 4), "ConvTranspose2d: x (N, 8, 8, 4) has 4 channels, n_in is 3"),
        (gm.ConvTranspose2d(3, 4, 3), (8, 8), "ConvTranspose2d: x has shape (N, 8, 8), not (N, H, W, n_in)"),
        (gm.ConvTranspose2d(3, 4, 1, padding=4), (8, 8, 3), "leaves none of (8, 8) places' pixels"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(layer: gm.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(gm.ShapeError) as caught:
        gm.Network([layer], input_shape=shape)
    assert message in str(caught.value)
