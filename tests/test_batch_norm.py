"""`gm.BatchNorm`: gradients, running statistics, folding into convolutions. Files, copies and steps that fail
are in test_batch_norm_state.py."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differences import ATOL, RTOL, check_network, differences, points
from norm_networks import bits, data, network, shake
from norm_reference import Array, Result, assert_within, normalize, statistics

import gemmule as gm
from gemmule import _core

# -- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "gelu", "tanh"])
def test_gradients_of_images(isa: str, activation: str | None, affine: bool) -> None:
    """Between two layers, so that its own input's gradient is needed too."""
    layers = gm.Conv2d(2, 3, 2), gm.BatchNorm(3, activation, affine=affine), gm.Flatten(), gm.Dense(None, 3)
    net = network((4, 5, 2), *layers)
    shake(net)
    check_network(net, points((5, 4, 5, 2)), "cross_entropy", np.array([0, 2, 1, 2, 0]))


@pytest.mark.parametrize("channels", [1, 3, 10, 16])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_gradients_of_rows(isa: str, activation: str | None, channels: int) -> None:
    net = network((4,), gm.Dense(4, channels), gm.BatchNorm(channels, activation), gm.Dense(channels, 2))
    shake(net)
    check_network(net, points((7, 4)), "mse", points((7, 2), seed=1))


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_gradients_of_a_first_layer_and_of_one_used_twice(isa: str, activation: str | None) -> None:
    shared = gm.BatchNorm(4, activation)
    net = network((3, 4), shared, gm.Activation("tanh"), shared, gm.Flatten(), gm.Dense(12, 2))
    shake(net)
    assert len(list(net.named_parameters())) == 4 and len(list(net.named_state())) == 2
    check_network(net, points((6, 3, 4)), "mse", points((6, 2), seed=1))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_of_a_frozen_layer(isa: str, activation: str | None) -> None:
    """Statistics are constants then."""
    net = network((4,), gm.Dense(4, 5), gm.BatchNorm(5, activation), gm.Dense(5, 2))
    shake(net)
    net[1].trainable = False
    x, target = points((7, 4)), points((7, 2), seed=1)

    def value() -> float:
        return float(gm.losses.mse(net.forward(x, training=True), target)[0])

    trained = {name: p for name, p in net.named_parameters() if not name.startswith("1.")}
    numeric, numeric_dx = {name: differences(value, p) for name, p in trained.items()}, differences(value, x)
    net.zero_grad()
    _, dz = gm.losses.mse(net.forward(x, training=True), target)
    np.testing.assert_allclose(net.backward(dz), numeric_dx, RTOL, ATOL)
    for name, p in trained.items():
        np.testing.assert_allclose(p.grad, numeric[name], RTOL, ATOL, err_msg=name)
    assert not net[1].weight.grad.any()


def test_residual_and_activation_are_one_pass() -> None:
    """relu(batch_norm(x W^T) + x), on the graph itself."""
    store, state, graph = (
        _core.Store("float64", [16, 4, 4]),
        _core.Store("float64", [4, 4]),
        _core.Graph("float64"),
    )
    x = graph.input([4])
    weight = graph.parameter(store, 0, [4, 4], True, "weight")
    affine = [graph.parameter(store, i, [4], True, f"p{i}") for i in (1, 2)]
    running = [graph.parameter(state, i, [4], False, f"s{i}") for i in (0, 1)]
    z = graph.batch_norm(graph.dense(x, weight, None, "z"), affine, running, 1e-5, 0.1, True, "n")
    y = graph.activation(graph.add(z, x, "sum"), "relu", 1.0, "y")
    tape = _core.Tape(graph, y, 5)
    assert "+ residual + relu" in tape.describe()
    store.values[...] = points((store.size,), seed=2)
    rows, dy = points((5, 4)), points((5, 4), seed=1)
    out, dx = np.empty((5, 4)), np.empty((5, 4))

    def value() -> float:
        tape.forward(rows, out, 0, 0)
        return float((out * dy).sum())

    numeric, numeric_dx = differences(value, store.values), differences(value, rows)
    value()
    tape.backward(dy, dx)
    np.testing.assert_allclose(store.grads[: store.size], numeric, RTOL, ATOL)
    np.testing.assert_allclose(dx, numeric_dx, RTOL, ATOL)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "tanh"])
@pytest.mark.parametrize("channels", [1, 3, 16, 33, 100])
def test_forward_is_the_formula(isa: str, dtype: str, channels: int, activation: str | None) -> None:
    net = network((3, 4, channels), gm.BatchNorm(channels, activation), dtype=dtype)
    shake(net)
    layer, x = net[0], (points((9, 3, 4, channels), seed=4) + 5).astype(dtype)
    given = layer.running_mean.astype(np.float64), layer.running_var.astype(np.float64)
    act: Callable[[Array], Array] = {
        "relu": lambda z: np.maximum(z, 0),
        "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
        "tanh": np.tanh,
    }.get(activation or "", lambda z: z)  # fmt: skip
    u = float(np.finfo(dtype).eps)
    for y, used in (
        (net.predict(x), given), (net.forward(x), given), (net.forward(x, training=True), None)
    ):  # fmt: skip
        z = normalize(x, (0, 1, 2), layer.weight, layer.bias, given=used)
        assert_within(y, Result(act(z.value), z.error + 8 * u), str(activation))
    np.testing.assert_array_equal(net.predict(x[0]), net.predict(x[:1])[0])


# -- running statistics --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.1, 0.75, 1.0])
@pytest.mark.parametrize(("shape", "rows"), [((5,), 30), ((4, 3, 6), 7), ((1,), 2), ((3,), 1), ((9, 2), 1)])
def test_running_statistics(isa: str, shape: tuple[int, ...], rows: int, momentum: float, dtype: str) -> None:
    """By hand; the variance is unbiased, and that of a single element is left out."""
    net = network(shape, gm.BatchNorm(momentum=momentum), dtype=dtype)
    mean, var = np.zeros(shape[-1]), np.ones(shape[-1])
    rng = np.random.default_rng(5)
    count = rows * int(np.prod(shape[:-1]))
    axes = tuple(range(len(shape)))
    for _ in range(3):
        x = (rng.standard_normal((rows, *shape)) * 3 + 10).astype(dtype)
        net.forward(x, training=True)
        now_mean, now_var = (a.reshape(-1) for a in statistics(x, axes))
        mean = (1 - momentum) * mean + momentum * now_mean
        if count > 1:
            var = (1 - momentum) * var + momentum * now_var * count / (count - 1)
        net.predict(x)
        net.forward(x)
        u = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(net[0].running_mean, mean, rtol=64 * u)
        np.testing.assert_allclose(net[0].running_var, var, rtol=128 * u)


def test_fit_moves_them_by_batches() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3)) * 2 + 1
    net = network((3,), gm.BatchNorm(), gm.Dense(3, 1))
    net.fit(x, np.zeros((40, 1)), loss="mse", epochs=2, batch_size=16, shuffle=False)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(2):
        for batch in (x[:16], x[16:32], x[32:]):
            mean = 0.9 * mean + 0.1 * batch.mean(axis=0)
            var = 0.9 * var + 0.1 * batch.var(axis=0, ddof=1)
    np.testing.assert_allclose(net[0].running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(net[0].running_var, var, rtol=1e-12)
    before = bits(net)
    net.evaluate(x, np.zeros((40, 1)), metrics=["mse"])
    net.trace(x)
    assert bits(net) == before


def test_a_layer_used_twice_counts_twice() -> None:
    shared = gm.BatchNorm(3, momentum=0.5)
    net = network((3,), shared, shared)
    x = np.random.default_rng(0).standard_normal((10, 3)) + 4
    net.forward(x, training=True)
    np.testing.assert_allclose(shared.running_mean, 0.25 * x.mean(axis=0), rtol=1e-12, atol=1e-12)


def state_of(layer: gm.Layer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in layer.named_state()}


@pytest.mark.parametrize("nested", [False, True])
def test_frozen_layers_use_and_keep_the_running_ones(nested: bool) -> None:
    inner: gm.Layer = gm.BatchNorm(5)
    frozen = gm.Network([inner], dtype="float64") if nested else inner
    net = network((4,), gm.Dense(4, 5), frozen, gm.Dense(5, 2))
    inner.running_mean, inner.running_var = np.arange(5), np.arange(5) + 1.0  # type: ignore[attr-defined]
    x, y = points((20, 4)), points((20, 2), seed=1)
    moving = net.forward(x, training=True)
    inner.running_mean, inner.running_var = np.arange(5), np.arange(5) + 1.0  # type: ignore[attr-defined]
    frozen.trainable = False
    before = state_of(inner)
    still = net.forward(x, training=True)
    np.testing.assert_allclose(still, net.predict(x), rtol=1e-12)
    assert abs(still - moving).max() > 0.1
    net.fit(x, y, loss="mse", epochs=2, batch_size=8)
    assert state_of(inner) == before
    frozen.trainable = True
    net.fit(x, y, loss="mse", epochs=1, batch_size=8)
    assert state_of(inner) != before


def test_momentum_may_change_between_fits() -> None:
    net = network((3,), gm.BatchNorm())
    x = np.random.default_rng(0).standard_normal((10, 3)) + 4
    net.forward(x, training=True)
    net[0].momentum = 1.0
    net.forward(x, training=True)
    np.testing.assert_allclose(net[0].running_mean, x.mean(axis=0), rtol=1e-12)


# -- folding -------------------------------------------------------------------------------------------------


def plan_of(net: gm.Network, capsys: pytest.CaptureFixture[str], training: bool = False) -> str:
    capsys.readouterr()
    net.plan(4, training=training)
    return capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "convolution",
    [{}, {"groups": 6}, {"groups": 2, "stride": 2}, {"kernel": 1}, {"kernel": 1, "stride": 2},
     {"dilation": 2, "padding": "same"}],
)  # fmt: skip
def test_folding_changes_results_by_rounding_only(
    isa: str,
    convolution: dict[str, Any],
    bias: bool,
    affine: bool,
    dtype: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The unfolded forward is `forward`, whose plan has the layer by itself. Both round every product and
    sum, 64 unit roundoffs of the sizes of their terms, before the factor or behind it."""
    options = {"kernel": 3, **convolution}
    net = network(
        (9, 8, 6), gm.Conv2d(6, 12, bias=bias, **options), gm.BatchNorm(12, affine=affine), dtype=dtype
    )
    shake(net)
    conv, norm = net[0], net[1]
    if bias:
        conv.bias += np.linspace(-1, 1, 12)
    x = (points((5, 9, 8, 6)) + 1).astype(dtype)
    assert "+ norm" in (text := plan_of(net, capsys)) and "batch_norm" not in text
    assert "batch_norm" in plan_of(net, capsys, training=True)
    scale = (norm.weight if affine else 1.0) / np.sqrt(norm.running_var.astype(np.float64) + norm.eps)
    shift = abs(norm.bias) if affine else 0.0
    steps = {key: value for key, value in options.items() if key != "kernel"}
    size = gm.ops.conv2d(abs(x), abs(conv.weight), abs(conv.bias) if bias else None, **steps)
    u = float(np.finfo(dtype).eps)
    error = 2 * 64 * u * (abs(scale) * (size + abs(norm.running_mean)) + shift)
    assert_within(net.predict(x), Result(net.forward(x).astype(np.float64), error))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "softmax"])
def test_folding_takes_activations_along(
    isa: str, activation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net = network(
        (7, 6, 3), gm.Conv2d(3, 8, 3), gm.BatchNorm(8, activation), gm.Conv2d(8, 4, 1), gm.BatchNorm()
    )
    shake(net)
    x = points((5, 7, 6, 3))
    text = plan_of(net, capsys)
    assert "batch_norm" not in text
    assert (f"+ norm + {activation}" in text) == (activation != "softmax")
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-11, atol=1e-12)
    net[1].running_var = np.linspace(1, 3, 8)  # folded anew at every call
    net[0].weight[...] *= 2
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-11, atol=1e-12)
    trace = net.trace(x)
    np.testing.assert_allclose(
        trace["3.h" if "3.h" in trace else "3.z"], net.predict(x), rtol=1e-11, atol=1e-12
    )


def block(shortcut: bool) -> gm.Residual:
    """As in a residual network."""
    around = [gm.Conv2d(4, 4, 1, bias=False), gm.BatchNorm(4)] if shortcut else None
    return gm.Residual(
        gm.Conv2d(4, 4, 3, padding=1, bias=False), gm.BatchNorm(4, "relu"),
        gm.Conv2d(4, 4, 3, padding=1, bias=False), gm.BatchNorm(4), shortcut=around, activation="relu",
    )  # fmt: skip


@pytest.mark.parametrize("shortcut", [False, True])
def test_residual_blocks(isa: str, shortcut: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Folded for inference, differentiated in training, constant where the block is frozen."""
    net = network((5, 4, 2), gm.Conv2d(2, 4, 2), block(shortcut), gm.Flatten(), gm.Dense(None, 3))
    rng = np.random.default_rng(3)
    for values in (*net.parameters(), *(state for _, state in net.named_state())):
        values += rng.uniform(0.1, 0.5, values.shape)
    text = plan_of(net, capsys)
    assert "+ norm + residual + relu" in text and "batch_norm" not in text
    x = points((6, 5, 4, 2))
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-11, atol=1e-12)
    labels = np.array([0, 2, 1, 2, 0, 1])
    check_network(net, x, "cross_entropy", labels)
    net[1].trainable = False
    np.testing.assert_allclose(net.forward(x, training=True), net.predict(x), rtol=1e-11, atol=1e-12)
    before = state_of(net[1])
    net.fit(x, labels, loss="cross_entropy", epochs=2)
    assert before == state_of(net[1]) and len(before) == (6 if shortcut else 4)


def test_what_others_read_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    """A normalization behind an activation, behind a dense layer, first, twice."""
    shared = gm.BatchNorm(4)
    for layers in (
        [gm.Conv2d(3, 4, 3, "relu"), gm.BatchNorm(4)],
        [gm.BatchNorm(3), gm.Conv2d(3, 4, 3)],
        [gm.Flatten(), gm.Dense(None, 4), gm.BatchNorm(4)],
        [gm.Conv2d(3, 4, 3), shared, shared],
    ):
        net = network((6, 5, 3), *layers)
        shake(net)
        assert "batch_norm" in plan_of(net, capsys)
        x = points((4, 6, 5, 3))
        np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-11, atol=1e-12)


def test_derivatives_of_activations_are_joined(capsys: pytest.CaptureFixture[str]) -> None:
    """To the product behind, or where there is none, to the gradient of the normalization."""
    layers = gm.Conv2d(2, 4, 3), gm.BatchNorm(4, "relu"), gm.AvgPool2d(2), gm.BatchNorm(4, "leaky_relu")
    text = plan_of(network((8, 8, 2), *layers, gm.Conv2d(4, 2, 1)), capsys, training=True)
    for line in (r"batch_norm +\+ relu", r"batch_norm_sums +x relu'", r"batch_norm_grad +x relu'",
                 r"batch_norm +\+ leaky_relu", r"conv2d_data +x leaky_relu'"):  # fmt: skip
        assert re.search(line, text), line


# -- PyTorch -------------------------------------------------------------------------------------------------


def test_pytorch_trains_alike() -> None:
    torch = pytest.importorskip("torch")
    x, y = data(60, "float64")
    net = network((6, 5, 2), gm.Conv2d(2, 5, 3), gm.BatchNorm(5, "relu", momentum=0.2), gm.GlobalAvgPool2d(),
                  gm.Dense(5, 3))  # fmt: skip
    nn = torch.nn
    conv, norm, dense = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, momentum=0.2), nn.Linear(5, 3)
    theirs = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense).double()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(np.moveaxis(net[0].weight, 3, 1).copy()))
        conv.bias.zero_()
        dense.weight.copy_(torch.tensor(np.array(net[3].weight)))
        dense.bias.zero_()
    net.fit(x, y, loss="cross_entropy", optimizer=gm.SGD(0.1), epochs=2, batch_size=20, shuffle=False)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    for i in (0, 20, 40) * 2:
        images = torch.tensor(np.moveaxis(x[i : i + 20], 3, 1).copy())
        loss = nn.functional.cross_entropy(theirs(images), torch.tensor(y[i : i + 20]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer = net[1]
    for ours, his in [
        (layer.weight, norm.weight), (layer.bias, norm.bias), (layer.running_mean, norm.running_mean),
        (layer.running_var, norm.running_var), (net[3].weight, dense.weight),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, his.detach().numpy(), rtol=1e-9, atol=1e-11)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.BatchNorm(0), ValueError, "BatchNorm: n is 0"),
        (lambda: gm.BatchNorm(2.0), TypeError, "BatchNorm: n must be an integer"),
        (lambda: gm.BatchNorm(True), TypeError, "BatchNorm: n must be an integer"),
        (lambda: gm.BatchNorm(2, "rellu"), ValueError, "unknown activation 'rellu'"),
        (lambda: gm.BatchNorm(2, momentum=0), ValueError, "BatchNorm: momentum is 0"),
        (lambda: gm.BatchNorm(2, momentum=1.5), ValueError, "BatchNorm: momentum is 1.5"),
        (lambda: gm.BatchNorm(2, momentum=-0.1), ValueError, "BatchNorm: momentum is -0.1"),
        (lambda: gm.BatchNorm(2, momentum=float("nan")), ValueError, "BatchNorm: momentum is nan"),
        (lambda: gm.BatchNorm(2, momentum="0.1"), TypeError, "BatchNorm: momentum"),
        (lambda: gm.BatchNorm(2, eps=0), ValueError, "BatchNorm: eps is 0"),
        (lambda: gm.BatchNorm(2, eps=-1e-5), ValueError, "BatchNorm: eps is -1e-05"),
        (lambda: gm.BatchNorm(2, eps=float("inf")), ValueError, "BatchNorm: eps is inf"),
        (lambda: setattr(gm.BatchNorm(2), "eps", 0), ValueError, "BatchNorm: eps is 0"),
        (lambda: gm.Network([gm.BatchNorm(3)], input_shape=(4, 4, 2)), gm.ShapeError, "2 channels, n is 3"),
        (lambda: gm.Network([gm.Dense(4, 5), gm.BatchNorm(3)]), gm.ShapeError, "has 5 channels, n is 3"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
