"""Layers with a way around them, and what is made of chains of layers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differences import check_network, points
from helpers import Doubling, weights
from image_cases import channels_first
from image_reference import Window, conv2d
from numpy.typing import NDArray
from residual_cases import LABELS, block, everything, network, stirred

import gemmule as gm

Array = NDArray[Any]


# -- what it computes ----------------------------------------------------------------------------------------


def normalized(state: dict[str, Array], name: str, x: Array, training: bool) -> Array:
    """x as BatchNorm `name` has it, in float64."""
    axes = tuple(range(x.ndim - 1))
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        mean, var = x.mean(axes), x.var(axes)
    return state[f"{name}.weight"] * (x - mean) / np.sqrt(var + 1e-5) + state[f"{name}.bias"]


def reference(state: dict[str, Array], name: str, x: Array, stride: int, training: bool) -> Array:
    """`block` by its definition, in float64, its parameters found by their names."""
    ones = Window((3, 3), (stride, stride), (1, 1, 1, 1)), Window((3, 3), (1, 1), (1, 1, 1, 1))
    h = normalized(state, f"{name}.1", conv2d(x, state[f"{name}.0.weight"], None, ones[0]), training)
    h = conv2d(np.maximum(h, 0), state[f"{name}.2.weight"], None, ones[1])
    h = normalized(state, f"{name}.3", h, training)
    if f"{name}.shortcut.0.weight" in state:
        around = conv2d(x, state[f"{name}.shortcut.0.weight"], None, Window((1, 1), (stride, stride)))
        x = normalized(state, f"{name}.shortcut.1", around, training)
    return np.maximum(h + x, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(4, 4, 1), (4, 8, 1), (3, 4, 2), (16, 16, 1)])
def test_blocks_do_what_is_written(isa: str, sizes: tuple[int, int, int], dtype: str) -> None:
    """Two in a row, in training and after it. Twelve operations of sums of at most 9 x 16 terms, of numbers
    of order one: 4 eps each bounds sqrt(144) / 2 eps steps of a random walk, times 8 deviations."""
    n_in, n_out, stride = sizes
    net = stirred(network((7, 6, n_in), block(n_in, n_out, stride), block(n_out, n_out), dtype=dtype))
    x = np.random.default_rng(1).standard_normal((5, 7, 6, n_in)).astype(dtype)
    state = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    for training in (False, True):
        h = reference(state, "0", x.astype(np.float64), stride, training)
        want = reference(state, "1", h, 1, training)
        tolerance = 12 * 4 * 8 * np.finfo(dtype).eps * abs(want).max()
        for got in (net.forward(x, training=training), *(() if training else (net.predict(x),))):
            assert got.dtype == dtype
            assert abs(got - want).max() <= tolerance


def test_a_shortcut_of_its_own_and_dense_layers() -> None:
    net = network((3,), gm.Residual(gm.Dense(3, 2, "tanh"), shortcut=gm.Dense(3, 2), activation="elu"))
    x = points((4, 3))
    first, around = net[0]._chains[""]._layers[0], net[0]._chains["shortcut"]._layers[0]
    z = np.tanh(x @ first.weight.T + first.bias) + x @ around.weight.T + around.bias
    np.testing.assert_allclose(net.predict(x), np.where(z > 0, z, np.expm1(z)), rtol=1e-13)


def test_whole_numbers_are_exact(isa: str) -> None:
    """Sums of integers below 2^24: nothing is rounded, so a term lost or doubled shows."""
    rng = np.random.default_rng(0)
    net = network(
        (6, 5, 3),
        gm.Residual(
            gm.Conv2d(3, 3, 3, padding=1), gm.Residual(gm.Conv2d(3, 3, 1)), activation="relu"
        ),
        gm.Residual(gm.Conv2d(3, 8, 3, padding=1), shortcut=gm.Conv2d(3, 8, 1)),
        dtype="float32",
    )  # fmt: skip
    for p in net.parameters():
        p[...] = rng.integers(-2, 3, p.shape)
    x = rng.integers(-3, 4, (4, 6, 5, 3)).astype(np.float32)
    state = net.state_dict()
    edge = Window((3, 3), (1, 1), (1, 1, 1, 1))
    inner = conv2d(x, state["0.0.weight"], state["0.0.bias"], edge)
    inner = inner + conv2d(inner, state["0.1.0.weight"], state["0.1.0.bias"], Window((1, 1)))
    h = np.maximum(inner + x, 0)
    want = conv2d(h, state["1.0.weight"], state["1.0.bias"], edge)
    want += conv2d(h, state["1.shortcut.0.weight"], state["1.shortcut.0.bias"], Window((1, 1)))
    assert abs(want).max() < 2**24
    before = gm.numerics()
    gm.set_numerics("strict")  # Winograd's transforms divide
    try:
        np.testing.assert_array_equal(net.predict(x), want)
        np.testing.assert_array_equal(net.forward(x), want)
    finally:
        gm.set_numerics(before)


# -- gradients -----------------------------------------------------------------------------------------------


def shared_within() -> list[gm.Layer]:
    conv = gm.Conv2d(2, 2, 3, "tanh", padding=1)
    return [gm.Residual(conv, conv), gm.Residual(conv, shortcut=conv)]


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [gm.Residual(gm.Conv2d(2, 2, 3, padding=1), activation="tanh")],
        lambda: [gm.Residual(gm.Conv2d(2, 4, 3, stride=2, padding=1), shortcut=gm.Conv2d(2, 4, 1, stride=2))],
        lambda: [block(2, 2, activation="softplus"), block(2, 4, 2, None)],
        lambda: [block(2, 2, activation="leaky_relu")],
        lambda: [gm.Residual(gm.Residual(gm.Conv2d(2, 2, 1, "tanh")), gm.Residual(gm.BatchNorm(2)))],
        lambda: [gm.Residual(gm.Conv2d(2, 2, 1), activation=(np.sin, np.cos))],
        lambda: [gm.Residual(gm.MaxPool2d(3, 1, 1), gm.Conv2d(2, 2, 1, "tanh"))],
        lambda: [gm.Residual(gm.Conv2d(2, 2, 1, "tanh"), shortcut=[gm.AvgPool2d(3, 1, 1), Doubling()])],
        lambda: [gm.Residual(gm.Network([gm.Conv2d(2, 2, 1)]), shortcut=gm.Network([block(2, 2)]))],
        lambda: [gm.Residual(gm.Activation("tanh"))],
        shared_within,
    ],
)  # fmt: skip
def test_gradients(isa: str, layers: Callable[[], list[gm.Layer]]) -> None:
    net = network((5, 4, 2), gm.Conv2d(2, 2, 1), *layers(), gm.Flatten(), gm.Dense(None, 3))
    check_network(stirred(net), points((4, 5, 4, 2)), "cross_entropy", LABELS)


def test_the_input_is_the_shortcut(isa: str) -> None:
    """A first layer: the gradient of x comes from both ways."""
    net = network((3,), gm.Residual(gm.Dense(3, 3, "tanh")))
    check_network(net, points((4, 3)), "mse", points((4, 3), seed=1))
    net.forward(points((4, 3)))
    net[0]._chains[""]._layers[0].weight[...] = 0
    net.forward(points((4, 3)))
    dy = points((4, 3), seed=2)
    np.testing.assert_array_equal(net.backward(dy), dy)


def test_dropout_within_draws_as_elsewhere() -> None:
    x = points((64, 6))
    plain = network((6,), gm.Dropout(0.5), rng=3).forward(x, training=True)
    around = network((6,), gm.Residual(gm.Dropout(0.5)), rng=3).forward(x, training=True)
    np.testing.assert_array_equal(around, plain + x)
    check_network(
        network((6,), gm.Residual(gm.Dense(6, 6), gm.Dropout(0.5)), rng=3), points((4, 6)), "mse",
        points((4, 6), seed=1), repeatable=False,
    )  # fmt: skip


# -- layouts, threads ----------------------------------------------------------------------------------------


def test_channels_first() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 2)).astype(np.float32)
    last, first = everything(), everything(layout="channels_first")
    np.testing.assert_array_equal(first.predict(channels_first(x)), last.predict(x))
    for net, images in ((last, x), (first, channels_first(x))):
        net.fit(images, LABELS, loss="cross_entropy", epochs=2)
    assert weights(last) == weights(first)
    traces = first.trace(channels_first(x)), last.trace(x)
    for name, value in traces[0].items():
        want = traces[1][name]
        np.testing.assert_array_equal(value, channels_first(want) if want.ndim == 4 else want)


def test_threads_do_not_change_a_bit(isa: str) -> None:
    x = np.random.default_rng(0).standard_normal((40, 6, 5, 2)).astype(np.float32)
    labels = np.arange(40) % 3
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            net = everything()
            net.fit(x, labels, loss="cross_entropy", epochs=2, batch_size=16)
            results.add((*weights(net).values(), net.predict(x).tobytes()))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


# -- fusions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fusions_change_results_by_rounding_only(isa: str, dtype: str) -> None:
    """`predict` folds normalizations, and adds and cuts off in the convolutions' one pass; `forward` keeps
    what backward needs; `trace` keeps every value, so that next to nothing is fused. Three blocks of
    twelve operations, each with sums of at most 9 x 24 terms: see `test_blocks_do_what_is_written`."""
    net = stirred(network((9, 8, 3), block(3, 24, 2), block(24, 24), block(24, 24, 1, "leaky_relu"),
                          gm.Residual(block(24, 24), shortcut=gm.Conv2d(24, 24, 1), activation="relu"),
                          dtype=dtype))  # fmt: skip
    x = np.random.default_rng(2).standard_normal((7, 9, 8, 3)).astype(dtype)
    trace = net.trace(x)["3.h"]
    tolerance = 4 * 12 * 5 * 8 * np.finfo(dtype).eps * abs(trace).max()
    for got in (net.predict(x), net.forward(x)):
        assert abs(got - trace).max() <= tolerance
    np.testing.assert_array_equal(net.predict(x[:3]), net.predict(x)[:3])


def test_the_plan_names_what_is_fused(capsys: pytest.CaptureFixture[str]) -> None:
    net = network((8, 8, 4), block(), gm.Residual(gm.Conv2d(4, 4, 3, padding=1), activation="relu"))
    net.plan(4, training=False)
    text = capsys.readouterr().out
    assert "batch_norm" not in text and "+ residual + relu" in text
    assert not any(line.split()[:1] == ["add"] for line in text.splitlines())
