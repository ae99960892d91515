"""`gm.GroupNorm` and `gm.LayerNorm`: formulas, gradients, fusion, files, threads, what they refuse."""

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import check_network, points
from norm_networks import Array, bits, network
from norm_reference import Result, assert_within, normalize

import gemmule as gm

LABELS = np.array([0, 2, 1, 2, 0])


def shake(net: gm.Network) -> None:
    """Weights and biases away from 1 and 0."""
    rng = np.random.default_rng(3)
    for layer in net:
        if isinstance(layer, gm.GroupNorm | gm.LayerNorm) and layer.weight is not None:
            layer.weight += rng.uniform(-0.5, 0.5, layer.weight.shape)
            layer.bias += rng.uniform(0.2, 0.5, layer.weight.shape)


# -- formulas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "gelu"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((3, 4, 6), 2), ((3, 4, 6), 6), ((12,), 4), ((7, 33), 3), ((30, 20, 64), 8), ((5, 1), 1)],
)  # fmt: skip
def test_groups(isa: str, shape: tuple[int, ...], groups: int, activation: str | None, dtype: str) -> None:
    net = network(shape, gm.GroupNorm(groups, activation=activation), dtype=dtype)
    shake(net)
    layer, x = net[0], (points((5, *shape), seed=4) + 5).astype(dtype)
    split = (5, -1, groups, shape[-1] // groups)
    weight, bias = (p.reshape(groups, -1) for p in (layer.weight, layer.bias))
    z = normalize(x.reshape(split), (1, 3), weight, bias)
    check_values(net, x, Result(z.value.reshape(x.shape), z.error.reshape(x.shape)), activation)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "gelu"])
@pytest.mark.parametrize(
    ("shape", "last"),
    [((10,), None), ((257,), 257), ((3, 7), 7), ((3, 7), (3, 7)), ((4, 3, 5), (3, 5)), ((6, 1), 1)],
)  # fmt: skip
def test_layers(isa: str, shape: tuple[int, ...], last: Any, activation: str | None, dtype: str) -> None:
    net = network(shape, gm.LayerNorm(last, activation), dtype=dtype)
    shake(net)
    layer, x = net[0], (points((5, *shape), seed=4) + 5).astype(dtype)
    assert layer.weight.shape == layer.shape == (last if isinstance(last, tuple) else shape[-1:])
    axes = tuple(range(1 + len(shape) - len(layer.shape), 1 + len(shape)))
    check_values(net, x, normalize(x, axes, layer.weight, layer.bias), activation)


def check_values(net: gm.Network, x: Array, z: Result, activation: str | None) -> None:
    """Every way forward; an activation's slope is at most 1.13, and it adds some roundings of its own."""
    u = float(np.finfo(x.dtype).eps)
    value = np.asarray(gm.ops.activation(z.value, activation or "identity"))
    wanted = Result(value, 1.13 * z.error + 8 * u * (1 + abs(z.value)))
    for y in (
        net.predict(x),
        net.forward(x),
        net.forward(x, training=True),
        net.trace(x)["0.h" if activation else "0.z"],
    ):
        assert_within(y, wanted, str(activation))
    np.testing.assert_array_equal(net.predict(x[0]), net.predict(x)[0])  # a sample's own affair


def test_without_factors() -> None:
    x = points((5, 3, 6))
    for layer, want in [
        (gm.GroupNorm(2, affine=False), gm.ops.group_norm(x, 2)),
        (gm.LayerNorm(affine=False), gm.ops.layer_norm(x)),
        (gm.LayerNorm((3, 6), affine=False, eps=0.1), gm.ops.layer_norm(x, shape=(3, 6), eps=0.1)),
    ]:
        net = network((3, 6), layer)
        assert not list(net.parameters()) and layer.weight is layer.bias is None
        np.testing.assert_array_equal(net.predict(x), want)


# -- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lambda: gm.GroupNorm(2, 6),
        lambda: gm.GroupNorm(3, 6, "relu"),
        lambda: gm.GroupNorm(1, activation="leaky_relu"),
        lambda: gm.GroupNorm(6, 6, "gelu"),
        lambda: gm.GroupNorm(2, 6, affine=False),
        lambda: gm.GroupNorm(2, 6, "relu", affine=False),
        lambda: gm.LayerNorm(),
        lambda: gm.LayerNorm((4, 6), "relu"),
        lambda: gm.LayerNorm((3, 4, 6), "silu"),
        lambda: gm.LayerNorm(6, "leaky_relu", affine=False),
        lambda: gm.LayerNorm(6, (lambda z: 2 * np.tanh(z), lambda z: 2 * (1 - np.tanh(z) ** 2))),
    ],
)
def test_gradients(isa: str, layer: Callable[[], gm.Layer]) -> None:
    """Of images between two layers, and first, where what comes after is fused with it."""
    for layers, shape in (
        ([gm.Conv2d(2, 6, 2), layer(), gm.Flatten(), gm.Dense(None, 3)], (4, 5, 2)),
        ([layer(), gm.Flatten(), gm.Dense(None, 3)], (3, 4, 6)),
    ):
        net = network(shape, *layers)
        shake(net)
        check_network(net, points((5, *shape)), "cross_entropy", LABELS)


@pytest.mark.parametrize("width", [1, 3, 17])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_of_rows(isa: str, activation: str | None, width: int) -> None:
    net = network((4,), gm.Dense(4, 2 * width), gm.LayerNorm(2 * width, activation), gm.GroupNorm(width),
                  gm.Dense(2 * width, 2))  # fmt: skip
    shake(net)
    check_network(net, points((6, 4)), "mse", points((6, 2), seed=1))


def test_gradients_of_one_used_twice_and_of_a_frozen_one() -> None:
    shared = gm.LayerNorm(4, "tanh")
    net = network((3, 4), shared, shared, gm.Flatten(), gm.Dense(12, 2))
    shake(net)
    check_network(net, points((6, 3, 4)), "mse", points((6, 2), seed=1))
    net[0].trainable = False
    net.zero_grad()
    x = points((6, 3, 4))
    net.forward(x, training=True)
    net.backward(np.ones((6, 2)))
    assert not shared.weight.grad.any() and net[3].weight.grad.any()
    before = shared.weight.copy()
    net.fit(x, points((6, 2), seed=1), loss="mse", epochs=2)
    np.testing.assert_array_equal(shared.weight, before)


def test_large_batches_of_small_samples(isa: str) -> None:
    """More samples than a piece of the sums has, in float32, against the same in float64."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((700, 4, 6)), rng.standard_normal((700, 4, 6))
    found = []
    for dtype in ("float64", "float32"):
        net = network((4, 6), gm.GroupNorm(2), gm.LayerNorm(), dtype=dtype)
        net.forward(x)
        found.append([net.backward(dy), *(p.grad for p in net.parameters())])
    for wanted, single in zip(*found, strict=True):
        np.testing.assert_allclose(single, wanted, rtol=0, atol=1e-4 * abs(wanted).max())


# -- training, files -----------------------------------------------------------------------------------------


def images() -> gm.Network:
    layers = [
        gm.Conv2d(1, 8, 3, bias=False), gm.GroupNorm(4, 8, "relu"),
        gm.Conv2d(8, 8, 3), gm.GroupNorm(8, activation="gelu"),
        gm.Flatten(), gm.LayerNorm(activation="leaky_relu", slope=0.2),
        gm.Dense(None, 10), gm.LayerNorm(10, affine=False),
    ]  # fmt: skip
    return gm.Network(layers, input_shape=(8, 8, 1), rng=0)


def digits() -> tuple[Array, Array]:
    X, y = gm.datasets.digits(as_images=True)
    return X[:300], y[:300]


def test_fit_learns(isa: str) -> None:
    X, y = digits()
    net = images()
    history = net.fit(X, y, loss="cross_entropy", optimizer=gm.Adam(5e-3), epochs=8, metrics=["accuracy"])
    assert history["accuracy"][-1] > 0.9
    assert net.evaluate(X, y)["accuracy"] > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_a_bit(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 9, 8, 3)), rng.integers(0, 4, 300)
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            net = network(
                (9, 8, 3), gm.Conv2d(3, 32, 3), gm.GroupNorm(8, activation="relu"), gm.LayerNorm(),
                gm.Flatten(), gm.Dense(None, 50), gm.LayerNorm(50, "relu"), gm.Dense(50, 4), dtype=dtype,
            )  # fmt: skip
            net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=128)
            results.add((*bits(net).values(), net.predict(x).tobytes()))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


def test_accumulated_batches_are_one_of_their_size() -> None:
    """A sample's statistics are its own, so the split changes the order of sums alone."""
    X, y = digits()
    nets = [images(), images()]
    for net, options in zip(nets, ({"batch_size": 20, "accumulate": 3}, {"batch_size": 60}), strict=True):
        net.fit(X, y, loss="cross_entropy", optimizer=gm.SGD(0.01), shuffle=False, **options)
    for (name, a), b in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)


def test_save_load_and_copies(tmp_path: Path) -> None:
    X, y = digits()
    net = images()
    net.fit(X, y, loss="cross_entropy", epochs=1)
    path = tmp_path / "net.safetensors"
    net.save(path)
    for other in (gm.load(path), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert bits(other) == bits(net)
        assert repr(other) == repr(net) and other.summary() == net.summary()
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
    plain = gm.Network([gm.GroupNorm(2, affine=False), gm.LayerNorm((3, 4), eps=1e-3)], input_shape=(3, 4))
    plain.save(path)
    again = gm.load(path)
    assert repr(again) == repr(plain) and again[1].shape == (3, 4)
    assert not list(net.named_state())


def test_channels_first_networks_normalize_channels() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5, 6, 8)).astype(np.float32)
    for layer in (lambda: gm.GroupNorm(2), lambda: gm.LayerNorm(), lambda: gm.BatchNorm()):
        last = gm.Network([layer()], input_shape=(5, 6, 8))
        first = gm.Network([layer()], input_shape=(8, 5, 6), layout="channels_first")
        np.testing.assert_array_equal(first.predict(np.moveaxis(x, 3, 1)), np.moveaxis(last.predict(x), 3, 1))


def test_plan_joins_activations(capsys: pytest.CaptureFixture[str]) -> None:
    layers = gm.Conv2d(2, 4, 3), gm.GroupNorm(2, 4, "relu"), gm.AvgPool2d(2), gm.LayerNorm(4, "leaky_relu")
    net = network((8, 8, 2), *layers, gm.GroupNorm(4, 4, "gelu"))
    net.plan(4, training=True)
    text = capsys.readouterr().out
    for line in (r"group_norm +\+ relu", r"group_norm_sums +x relu'", r"group_norm_grad +x relu'",
                 r"group_norm +\+ leaky_relu", r"activation_grad +gelu", "statistics"):  # fmt: skip
        assert re.search(line, text), line
    net.plan(4, training=False)
    assert "statistics" not in capsys.readouterr().out  # nobody reads them, so they are not kept


def test_representations() -> None:
    for layer, text in [
        (gm.GroupNorm(4), "GroupNorm(4, None)"),
        (gm.GroupNorm(4, 8, "relu", eps=1e-3), "GroupNorm(4, 8, relu, eps=0.001)"),
        (gm.GroupNorm(4, 8, affine=False, name="g"), "GroupNorm(4, 8, affine=False, name='g')"),
        (gm.LayerNorm(), "LayerNorm(None)"),
        (gm.LayerNorm(5, "gelu"), "LayerNorm(5, gelu)"),
        (gm.LayerNorm((3, 5), affine=False), "LayerNorm((3, 5), affine=False)"),
        (gm.BatchNorm(5, "relu", momentum=0.2, eps=1e-3), "BatchNorm(5, relu, momentum=0.2, eps=0.001)"),
    ]:
        assert repr(layer) == text
    net = network((4, 6), gm.GroupNorm(3), gm.LayerNorm())
    assert repr(net[0]) == "GroupNorm(3, 6)" and repr(net[1]) == "LayerNorm(6)"


def test_eps_and_activation_may_change() -> None:
    x = points((5, 6))
    net = network((6,), gm.LayerNorm())
    net.predict(x)
    net[0].eps, net[0].activation = 0.5, "relu"
    np.testing.assert_allclose(net.predict(x), np.maximum(gm.ops.layer_norm(x, eps=0.5), 0), rtol=1e-12)


# -- PyTorch -------------------------------------------------------------------------------------------------


def test_pytorch_trains_alike() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5, 4)), rng.standard_normal((40, 2))
    net = network((5, 4), gm.GroupNorm(2, 4, "relu"), gm.LayerNorm((5, 4)), gm.Flatten(), gm.Dense(20, 2))
    group, layer, dense = nn.GroupNorm(2, 4), nn.LayerNorm((5, 4)), nn.Linear(20, 2)
    for module in (group, layer, dense):
        module.double()
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(np.array(net[3].weight)))
        dense.bias.zero_()
    net.fit(x, y, loss="mse", optimizer=gm.SGD(0.1), epochs=3, batch_size=20, shuffle=False)
    parameters = [p for module in (group, layer, dense) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.1)
    for i in (0, 20) * 3:
        rows = torch.tensor(x[i : i + 20]).movedim(2, 1)
        h = layer(torch.relu(group(rows)).movedim(1, 2))
        loss = nn.functional.mse_loss(dense(h.flatten(1)), torch.tensor(y[i : i + 20]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, his in zip(net.parameters(), parameters, strict=True):
        np.testing.assert_allclose(ours, his.detach().numpy(), rtol=1e-9, atol=1e-11)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.GroupNorm(0), ValueError, "GroupNorm: groups is 0"),
        (lambda: gm.GroupNorm(2.0), TypeError, "GroupNorm: groups must be an integer"),
        (lambda: gm.GroupNorm(2, 5), ValueError, "groups is 2, which does not divide 5 channels"),
        (lambda: gm.GroupNorm(2, 0), ValueError, "GroupNorm: n is 0"),
        (lambda: gm.GroupNorm(2, eps=0), ValueError, "GroupNorm: eps is 0"),
        (lambda: gm.GroupNorm(2, activation="rellu"), ValueError, "unknown activation 'rellu'"),
        (lambda: gm.LayerNorm(0), ValueError, "LayerNorm: shape is 0"),
        (lambda: gm.LayerNorm(()), gm.ShapeError, "LayerNorm: shape is empty"),
        (lambda: gm.LayerNorm((3, "4")), TypeError, "LayerNorm: shape must be an integer"),
        (lambda: gm.LayerNorm(eps=float("nan")), ValueError, "LayerNorm: eps is nan"),
        (lambda: setattr(gm.LayerNorm(), "eps", -1), ValueError, "LayerNorm: eps is -1"),
        (lambda: gm.Network([gm.GroupNorm(2)], input_shape=(4, 5)), ValueError, "does not divide 5 channels"),
        (lambda: gm.Network([gm.GroupNorm(2, 4)], input_shape=(4, 6)), gm.ShapeError, "6 channels, n is 4"),
        (lambda: gm.Network([gm.LayerNorm(4)], input_shape=(4, 6)), gm.ShapeError, "(N, 4, 6) are not (4,)"),
        (lambda: gm.Network([gm.LayerNorm((2, 4, 6))], input_shape=(4, 6)), gm.ShapeError, "not (2, 4, 6)"),
        (lambda: gm.Network([gm.Dense(4, 5), gm.LayerNorm(3)]), gm.ShapeError, "(N, 5) are not (3,)"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
