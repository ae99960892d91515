"""Convolution and pooling as layers: gradients, shapes, descriptions, what they refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differences import check_network, points
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
LABELS = np.array([0, 2, 1, 2])


def network(shape: tuple[int, ...], *layers: gm.Layer, **options: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **options})


def distinct(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Values so far apart that a small step changes no maximum."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2) / 20


# -- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lambda: gm.Conv2d(2, 3, 3, "tanh"),
        lambda: gm.Conv2d(2, 3, (2, 3), "gelu", stride=2, padding=1),
        lambda: gm.Conv2d(2, 4, 3, "silu", padding="same", dilation=2, groups=2),
        lambda: gm.Conv2d(2, 4, 3, "softplus", stride=(1, 2), padding=(2, 0, 1, 1), groups=2, bias=False),
        lambda: gm.Conv2d(2, 3, 1, "sigmoid", slope=1.5),
        lambda: gm.Conv2d(2, 3, 3, "softmax"),
        lambda: gm.Conv2d(2, 3, 2, (lambda z: 2 * np.tanh(z), lambda z: 2 * (1 - np.tanh(z) ** 2))),
        lambda: gm.MaxPool2d(2),
        lambda: gm.MaxPool2d((3, 2), 1, padding=1),
        lambda: gm.AvgPool2d(2),
        lambda: gm.AvgPool2d(3, (2, 1), padding=1),
        lambda: gm.AvgPool2d(3, 2, padding="same", count_padding=False),
        lambda: gm.GlobalAvgPool2d(),
    ],
)
def test_gradients(isa: str, layer: Callable[[], gm.Layer]) -> None:
    """Each between two others, so that its own input's gradient is needed too."""
    net = network((5, 6, 2), gm.Conv2d(2, 2, 1), layer(), gm.Flatten(), gm.Dense(None, 3))
    net[0].weight = np.eye(2).reshape(2, 1, 1, 2)
    check_network(net, distinct((4, 5, 6, 2)), "cross_entropy", LABELS)


def test_gradients_of_a_first_layer(isa: str) -> None:
    net = network((5, 6, 2), gm.Conv2d(2, 3, 3, "tanh"), gm.MaxPool2d(2), gm.Flatten(), gm.Dense(None, 3))
    check_network(net, points((4, 5, 6, 2)), "cross_entropy", LABELS)


@pytest.mark.parametrize("padding", [0, (2, 1), "same"])
def test_gradients_of_sequences(isa: str, padding: Any) -> None:
    net = network(
        (9, 2),
        gm.Conv1d(2, 4, 3, "tanh", 2, padding, groups=2),
        gm.Conv1d(4, 3, 2),
        gm.Flatten(),
        gm.Dense(None, 3),
    )
    check_network(net, points((4, 9, 2)), "cross_entropy", LABELS)


def test_one_layer_used_twice_sums_its_gradients(isa: str) -> None:
    shared = gm.Conv2d(2, 2, 3, "tanh", padding=1)
    net = network((4, 5, 2), shared, shared, gm.GlobalAvgPool2d())
    assert len(list(net.named_parameters())) == 2
    check_network(net, points((3, 4, 5, 2)), "mse", points((3, 2), seed=1))


def test_gradients_add_up(isa: str) -> None:
    net = network((5, 6, 2), gm.Conv2d(2, 3, 3, "relu", stride=2), gm.GlobalAvgPool2d())
    x, dy = points((4, 5, 6, 2)), points((4, 3), seed=1)
    net.forward(x)
    dx = net.backward(dy)
    once = [p.grad.copy() for p in net.parameters()]
    net.forward(x)
    np.testing.assert_array_equal(net.backward(dy), dx)
    for p, grad in zip(net.parameters(), once, strict=True):
        np.testing.assert_allclose(p.grad, 2 * grad, rtol=1e-12)


# -- the layers are the ops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_do_what_the_ops_do(isa: str, dtype: str) -> None:
    net = network(
        (11, 10, 3),
        gm.Conv2d(3, 8, 3, "relu", padding="same", bias_init=np.arange(8) / 8),
        gm.MaxPool2d(3, 2, 1),
        gm.Conv2d(8, 16, (2, 3), "elu", stride=2, groups=4, padding=(0, 1, 1, 0)),
        gm.AvgPool2d(2, 1, padding=1, count_padding=False),
        gm.GlobalAvgPool2d(),
        dtype=dtype,
    )
    x = np.random.default_rng(1).standard_normal((7, 11, 10, 3)).astype(dtype)
    first, third = net[0], net[2]
    h = gm.ops.conv2d(x, first.weight, first.bias, padding="same", activation="relu")
    h = gm.ops.max_pool2d(h, 3, 2, 1)
    h = gm.ops.conv2d(h, third.weight, third.bias, stride=2, groups=4, padding=(0, 1, 1, 0), activation="elu")
    h = gm.ops.avg_pool2d(h, 2, 1, 1, count_padding=False)
    want = gm.ops.global_avg_pool2d(h)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(net.predict(x), want, **tolerance)
    np.testing.assert_allclose(net.forward(x), want, **tolerance)
    trace = net.trace(x)
    np.testing.assert_allclose(trace["3.h"], h, **tolerance)
    np.testing.assert_allclose(np.maximum(trace["0.z"], 0), trace["0.h"], **tolerance)
    np.testing.assert_array_equal(net.predict(x[0]), net.predict(x[:1])[0])


@pytest.mark.parametrize("window", [(2, None, 0), (3, 2, 1)])
def test_a_bias_before_pooling(isa: str, window: tuple[int, int | None, int]) -> None:
    """Its gradient, a sum over all pixels of what the pool's spreads, is made before that: of dy alone. Whole
    numbers, so that both are exact; windows overlap in the second."""
    rng = np.random.default_rng(3)
    x, net = distinct((5, 9, 8, 2)), network((9, 8, 2), gm.Conv2d(2, 6, 1), gm.MaxPool2d(*window))
    y = net.forward(x, training=True)
    dy = rng.integers(-9, 10, y.shape).astype(float)
    net.backward(dy)
    dz = gm.ops.max_pool2d_backward(dy, gm.ops.conv2d(x, net[0].weight, net[0].bias), *window)
    np.testing.assert_array_equal(net[0].bias.grad, dz.sum((0, 1, 2)))


def test_sequences_are_images_of_height_one(isa: str) -> None:
    x = np.random.default_rng(2).standard_normal((3, 12, 4))
    for options in [
        {},
        {"stride": 3},
        {"padding": 2},
        {"padding": (2, 0), "dilation": 2},
        {"padding": "same", "stride": 2},
    ]:
        net = network((12, 4), gm.Conv1d(4, 6, 3, "tanh", groups=2, **options))
        given = dict(options)
        if isinstance(given.get("padding"), int):
            given["padding"] = (0, given["padding"])
        elif isinstance(given.get("padding"), tuple):
            given["padding"] = (0, 0, *given["padding"])
        for name in ("stride", "dilation"):
            given[name] = (1, given.get(name, 1))
        want = gm.ops.conv2d(x[:, None], net[0].weight, net[0].bias, groups=2, activation="tanh", **given)
        np.testing.assert_allclose(net.predict(x), want[:, 0], rtol=1e-13, atol=1e-14)
        trace = net.trace(x)
        assert trace["0.z"].shape == trace["0.h"].shape == want[:, 0].shape
        assert net.output_shape() == want.shape[2:]


# -- description ---------------------------------------------------------------------------------------------


def test_shapes_and_counts() -> None:
    net = gm.models.mnist_cnn(rng=0)
    assert net.output_shape() == (10,)
    assert [layer.output_shape((28, 28, 1)) for layer in net[:1]] == [(26, 26, 32)]
    assert net[0].flops((28, 28, 1)) == 2 * 26 * 26 * 32 * 9
    assert net[1].flops((26, 26, 32)) == 2 * 24 * 24 * 64 * 9 * 32
    assert net.flops() == 2 * (26 * 26 * 32 * 9 + 24 * 24 * 64 * 9 * 32 + 9216 * 128 + 128 * 10)
    assert sum(p.size for p in net.parameters()) == 1_199_882
    depthwise = gm.Conv2d(32, 32, 3, stride=2, padding=1, groups=32)
    assert depthwise.flops((9, 9, 32)) == 2 * 5 * 5 * 32 * 9
    assert gm.Conv1d(4, 6, 3, groups=2).flops((10, 4)) == 2 * 8 * 6 * 3 * 2


def test_summary() -> None:
    text = gm.models.lenet5(rng=0).summary()
    for line in (
        "Conv2d(1, 6, 5, tanh, padding=2)  (N, 28, 28, 6)",
        "AvgPool2d(2)                      (N, 14, 14, 6)",
        "Conv2d(6, 16, 5, tanh)            (N, 10, 10, 16)",
        "Flatten()                         (N, 400)",
        "61,706 parameters",
    ):
        assert line in text
    first = gm.models.lenet5(rng=0, layout="channels_first").summary()
    assert "(N, 6, 28, 28)" in first and "input (N, 1, 28, 28)" in first


def test_representations() -> None:
    for layer, text in [
        (gm.Conv2d(3, 8, 3), "Conv2d(3, 8, 3)"),
        (gm.Conv2d(None, 8, (3, 5), "relu"), "Conv2d(None, 8, (3, 5), relu)"),
        (gm.Conv2d(2, 4, 3, padding=(1, 2), bias=False), "Conv2d(2, 4, 3, padding=(1, 2), bias=False)"),
        (gm.Conv2d(2, 4, 3, padding=(1, 2, 1, 2)), "Conv2d(2, 4, 3, padding=(1, 2, 1, 2))"),
        (gm.Conv2d(2, 4, 3, padding="valid"), "Conv2d(2, 4, 3)"),
        (
            gm.Conv2d(2, 4, 3, stride=2, dilation=(1, 2), groups=2, padding="same", name="c"),
            "Conv2d(2, 4, 3, stride=2, padding='same', dilation=(1, 2), groups=2, name='c')",
        ),
        (gm.Conv1d(2, 4, 3, stride=2, padding=(1, 0)), "Conv1d(2, 4, 3, stride=2, padding=(1, 0))"),
        (gm.MaxPool2d(2), "MaxPool2d(2)"),
        (gm.MaxPool2d(3, 2, 1), "MaxPool2d(3, stride=2, padding=1)"),
        (gm.AvgPool2d((2, 3), count_padding=False), "AvgPool2d((2, 3), count_padding=False)"),
        (gm.GlobalAvgPool2d(), "GlobalAvgPool2d()"),
    ]:
        assert repr(layer) == text


def test_plan_joins_activations_to_convolutions(capsys: pytest.CaptureFixture[str]) -> None:
    network((8, 8, 2), gm.Conv2d(2, 4, 3, "relu"), gm.GlobalAvgPool2d()).plan(4, training=False)
    assert "conv2d" in (text := capsys.readouterr().out)
    assert "+ bias + relu" in text
    network((8, 2), gm.Conv1d(2, 4, 3, "relu"), gm.Flatten()).plan(4, training=False)
    assert "+ bias + relu" in capsys.readouterr().out


def test_initial_weights_follow_the_fans() -> None:
    """PyTorch's: fan_in = k_h k_w n_in / groups, fan_out = k_h k_w n_out."""
    filters = gm.Conv2d(64, 96, (3, 5), "relu", groups=2)
    network((9, 9, 64), filters)
    assert filters.weight.shape == (96, 3, 5, 32)
    np.testing.assert_allclose(filters.weight.std(), np.sqrt(2 / (15 * 32)), rtol=0.02)
    assert not filters.bias.any()
    linear = gm.Conv2d(64, 96, (3, 5), groups=2)
    network((9, 9, 64), linear)
    limit = np.sqrt(6 / (15 * 32 + 15 * 96))
    np.testing.assert_allclose(abs(linear.weight).max(), limit, rtol=1e-3)
    flat = gm.Conv2d(3, 8, 3, init="orthogonal")
    network((9, 9, 3), flat)
    rows = flat.weight.reshape(8, 27)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-12)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.Conv2d(0, 4, 3), ValueError, "Conv2d: n_in is 0"),
        (lambda: gm.Conv2d(3, 4.0, 3), TypeError, "Conv2d: n_out must be an integer"),
        (lambda: gm.Conv2d(3, 4, 0), ValueError, "Conv2d: kernel is 0; it must be at least 1"),
        (lambda: gm.Conv2d(3, 4, "3"), TypeError, "Conv2d: kernel must be an integer or 2 of them"),
        (lambda: gm.Conv2d(3, 4, 3, stride=0), ValueError, "Conv2d: stride is 0"),
        (lambda: gm.Conv2d(3, 4, 3, dilation=(1, 0)), ValueError, "Conv2d: dilation is (1, 0)"),
        (lambda: gm.Conv2d(3, 4, 3, padding=-1), ValueError, "Conv2d: padding is -1; it must not be"),
        (lambda: gm.Conv2d(3, 4, 3, padding=2**31), ValueError, "Conv2d: padding is 2147483648"),
        (lambda: gm.Conv2d(3, 4, 3, padding="SAME"), ValueError, "Conv2d: padding is 'SAME'; known: same"),
        (lambda: gm.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d: groups is 2, which does not divide"),
        (lambda: gm.Conv2d(None, 4, 3, groups=3), ValueError, "does not divide 4 output channels"),
        (lambda: gm.Conv2d(3, 4, 3, "sofmax"), ValueError, "unknown activation 'sofmax'"),
        (lambda: gm.Conv2d(3, 4, 3, init="hee"), ValueError, "unknown init 'hee'"),
        (lambda: gm.Conv1d(3, 4, (3, 3)), TypeError, "Conv1d: kernel must be an integer"),
        (lambda: gm.Conv1d(3, 4, 3, stride=0), ValueError, "Conv1d: stride is 0"),
        (lambda: gm.Conv1d(3, 4, 3, padding=(1, -1)), ValueError, "Conv1d: padding is (1, -1)"),
        (lambda: gm.MaxPool2d(0), ValueError, "MaxPool2d: kernel is 0"),
        (lambda: gm.MaxPool2d(2, padding=2), ValueError, "MaxPool2d: padding 2 is more than half"),
        (lambda: gm.AvgPool2d(2, stride=0), ValueError, "AvgPool2d: stride is 0"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (gm.Conv2d(3, 4, 3), (8, 8, 4), "Conv2d: x (N, 8, 8, 4) has 4 channels, n_in is 3"),
        (gm.Conv2d(3, 4, 3), (8, 8), "Conv2d: x has shape (N, 8, 8), not (N, H, W, n_in)"),
        (gm.Conv2d(3, 4, 5), (4, 8, 3), "Conv2d: kernel (5, 5) spans (5, 5) pixels, the padded image (4, 8)"),
        (gm.Conv2d(3, 4, 3, dilation=4), (8, 8, 3), "kernel (3, 3) with dilation (4, 4) spans (9, 9) pixels"),
        (gm.Conv2d(3, 4, 1, padding=2**31 - 1), (8, 8, 3), "overflows 64 bits"),
        (gm.Conv2d(1, 2**40, 3, init="zeros"), (2**31, 2**31, 1), "overflows 64 bits"),
        (gm.Conv1d(3, 4, 3), (8, 8, 3), "Conv1d: x has shape (N, 8, 8, 3), not (N, L, n_in)"),
        (gm.Conv1d(3, 4, 9), (8, 3), "Conv1d: kernel (1, 9) spans (1, 9) pixels, the padded image (1, 8)"),
        (gm.MaxPool2d(3), (2, 8, 3), "MaxPool2d: kernel (3, 3) spans (3, 3) pixels, the padded image (2, 8)"),
        (gm.AvgPool2d(3), (24,), "AvgPool2d: x has shape (N, 24), not (N, H, W, C)"),
        (gm.GlobalAvgPool2d(), (24,), "GlobalAvgPool2d: x has shape (N, 24), not (N, H, W, C)"),
        (gm.Conv2d(1, 4, 3, init=np.ones((4, 3, 3))), (8, 8, 1), "0.weight has shape (4, 3, 3, 1)"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(layer: gm.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(gm.ShapeError) as caught:
        gm.Network([layer], input_shape=shape)
    assert message in str(caught.value)


def test_groups_that_do_not_divide_what_comes() -> None:
    with pytest.raises(ValueError, match="groups is 2, which does not divide 3 input and 4 output channels"):
        gm.Network([gm.Conv2d(None, 4, 3, groups=2)], input_shape=(8, 8, 3))


def test_a_dense_layer_says_what_is_missing() -> None:
    with pytest.raises(gm.ShapeError, match=r"put Flatten\(\) before"):
        gm.Network([gm.Conv2d(1, 4, 3), gm.Dense(None, 3)], input_shape=(8, 8, 1))
