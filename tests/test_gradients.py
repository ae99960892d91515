"""Gradients against float64 central differences, for every op and for whole networks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from differences import ATOL, RTOL, STEP, check_network, differences, points
from numpy.typing import NDArray

import gemmule as gm
from gemmule import _core

Array = NDArray[Any]

SLOPED = ("leaky_relu", "elu", "sigmoid")


def network(*layers: gm.Layer, rng: int = 0) -> gm.Network:
    return gm.Network(list(layers), dtype="float64", rng=rng)


# -- ops -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
def test_activation(isa: str, name: str) -> None:
    for slope in (0.7, 1.9) if name in SLOPED else (1.0,):
        x = points((9, 17))
        net = network(gm.Activation(name, slope=slope if name in SLOPED else None))
        z = x.copy()
        dh = np.random.default_rng(1).standard_normal(x.shape)
        numeric = differences_elementwise(lambda a, net=net: net.forward(a), z) * dh
        net.forward(x)
        np.testing.assert_allclose(net.backward(dh), numeric, RTOL, ATOL)


def differences_elementwise(f: Callable[[Array], Array], x: Array) -> Array:
    """f' of a function applied to each element alone."""
    return (f(x + STEP) - f(x - STEP)) / (2 * STEP)


def test_softmax(isa: str) -> None:
    x = points((4, 7))
    net = gm.Network([gm.Activation("softmax")], dtype="float64", input_shape=7)
    check_network(net, x, "mse", points((4, 7), seed=1))


@pytest.mark.parametrize("loss", list(reference.LOSSES))
def test_loss(isa: str, loss: str) -> None:
    rng = np.random.default_rng(2)
    pred, target = points((6, 5)), points((6, 5), seed=3)
    targets = [target]
    if loss == "bce":
        pred = rng.uniform(0.05, 0.95, (6, 5))
    if loss.startswith("bce"):
        targets = [rng.integers(0, 2, (6, 5)).astype(float), rng.random((6, 5))]
    if loss in ("cross_entropy", "kl_divergence"):
        targets = [rng.integers(0, 5, 6), rng.dirichlet(np.ones(5), 6)][loss == "kl_divergence" :]
    if loss == "hinge":
        targets = [rng.choice([-1.0, 1.0], (6, 5)), rng.integers(0, 5, 6)]
    if loss == "poisson":
        targets = [rng.poisson(2, (6, 5)).astype(float)]
    function = getattr(gm.losses, loss)
    for target in targets:
        _, grad = function(pred, target)
        numeric = differences(lambda t=target: function(pred, t)[0], pred)
        np.testing.assert_allclose(grad, numeric, RTOL, ATOL)


def test_cross_entropy_of_probabilities(isa: str) -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.ones(5), 6)
    for target in (rng.integers(0, 5, 6), rng.dirichlet(np.ones(5), 6)):
        _, grad = gm.losses.cross_entropy(p, target, from_logits=False)
        numeric = differences(lambda t=target: gm.losses.cross_entropy(p, t, from_logits=False)[0], p)
        np.testing.assert_allclose(grad, numeric, RTOL, ATOL)


# -- networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
def test_network_of_each_activation(activation: str) -> None:
    net = network(gm.Dense(4, 6, activation), gm.Dense(6, 5, activation), gm.Dense(5, 3))
    check_network(net, points((7, 4)), "mse", points((7, 3), seed=1))


@pytest.mark.parametrize("loss", list(reference.LOSSES))
def test_network_of_each_loss(isa: str, loss: str) -> None:
    rng = np.random.default_rng(5)
    target: Array = points((7, 3), seed=1)
    if loss.startswith("bce"):
        target = rng.integers(0, 2, (7, 3)).astype(float)
    if loss in ("cross_entropy", "hinge"):
        target = rng.integers(0, 3, 7)
    if loss == "kl_divergence":
        target = rng.dirichlet(np.ones(3), 7)
    if loss == "poisson":
        target = rng.poisson(2, (7, 3)).astype(float)
    net = network(gm.Dense(4, 6, "tanh"), gm.Dense(6, 3, "sigmoid" if loss == "bce" else "identity"))
    check_network(net, points((7, 4)), loss, target)


def test_dense_without_bias_and_with_one_output() -> None:
    net = network(gm.Dense(4, 6, "silu", bias=False), gm.Dense(6, 1))
    check_network(net, points((5, 4)), "mse", points((5, 1), seed=1))


def test_dropout_with_a_fixed_key() -> None:
    net = network(gm.Dense(4, 8, "tanh"), gm.Dropout(0.4), gm.Dense(8, 3), gm.Dropout(0.2))
    check_network(net, points((6, 4)), "mse", points((6, 3), seed=1), repeatable=False)


def test_flatten_between_dense_layers() -> None:
    net = gm.Network(
        [gm.Flatten(), gm.Dense(12, 4, "gelu"), gm.Dense(4, 2)], dtype="float64", rng=0, input_shape=(2, 3, 2)
    )
    check_network(net, points((5, 2, 3, 2)), "mse", points((5, 2), seed=1))


def test_nested_networks() -> None:
    inner = network(gm.Dense(6, 6, "elu"), network(gm.Dense(6, 5, "softplus")))
    net = network(gm.Dense(4, 6, "tanh"), inner, gm.Dense(5, 2))
    check_network(net, points((5, 4)), "mse", points((5, 2), seed=1))


def test_one_layer_used_twice_sums_its_gradients() -> None:
    shared = gm.Dense(5, 5, "tanh")
    net = network(gm.Dense(4, 5), shared, shared, gm.Dense(5, 2))
    assert len(list(net.named_parameters())) == 6
    check_network(net, points((5, 4)), "mse", points((5, 2), seed=1))


def test_residual_add() -> None:
    """y = tanh(x W^T) + x, on the graph itself: x is read twice, so its adjoints are summed."""
    store, graph = _core.Store("float64", [16]), _core.Graph("float64")
    x = graph.input([4])
    weight = graph.parameter(store, 0, [4, 4], True, "weight")
    h = graph.activation(graph.dense(x, weight, None, "z"), "tanh", 1.0, "h")
    tape = _core.Tape(graph, graph.add(h, x, "y"), 5)
    store.values[...] = points((store.size,), seed=2)
    data, dy = points((5, 4)), points((5, 4), seed=1)
    out, dx = np.empty((5, 4)), np.empty((5, 4))

    def value() -> float:
        tape.forward(data, out, 0, 0)
        return float((out * dy).sum())

    numeric_dw, numeric_dx = differences(value, store.values), differences(value, data)
    value()
    tape.backward(dy, dx)
    np.testing.assert_allclose(store.grads, numeric_dw, RTOL, ATOL)
    np.testing.assert_allclose(dx, numeric_dx, RTOL, ATOL)


def test_custom_activation_pair() -> None:
    pair = gm.Activation((lambda z: 2 * np.tanh(z), lambda z: 2 * (1 - np.tanh(z) ** 2)))
    check_network(
        network(gm.Dense(4, 6), pair, gm.Dense(6, 2)), points((5, 4)), "mse", points((5, 2), seed=1)
    )


class Square(gm.Layer):
    """y = scale x^2 with a neighbour added, so that the adjoint mixes elements."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.add_parameter("scale", input_shape, np.linspace(0.5, 1, *input_shape))

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.scale * x * x + np.roll(x, 1, axis=-1)

    def backward(self, dy: Array) -> Array:
        self.scale.grad += (dy * self.x * self.x).sum(axis=0)
        return 2 * self.scale * self.x * dy + np.roll(dy, -1, axis=-1)


def test_custom_python_layer() -> None:
    net = network(gm.Dense(4, 6, "tanh"), Square(), gm.Dense(6, 2))
    check_network(net, points((5, 4)), "mse", points((5, 2), seed=1))


def test_backward_adds_to_grad() -> None:
    net = network(gm.Dense(4, 6, "tanh"), gm.Dense(6, 2))
    x, dz = points((5, 4)), points((5, 2), seed=1)
    net.forward(x)
    net.backward(dz)
    once = {name: p.grad.copy() for name, p in net.named_parameters()}
    net.forward(x)
    net.backward(dz)
    for name, p in net.named_parameters():
        np.testing.assert_allclose(p.grad, 2 * once[name], rtol=1e-12)
    net.zero_grad()
    assert not any(p.grad.any() for _, p in net.named_parameters())


def test_float32_gradients_follow_the_float64_ones(isa: str) -> None:
    """The same weights in both types. Each layer adds a rounding of about sqrt(k) eps of its terms; 1e-4 of
    an array's largest gradient is some hundred times that, and a hundred times less than any wrong term."""
    double = network(gm.Dense(20, 40, "gelu"), gm.Dense(40, 30, "tanh"), gm.Dense(30, 10))
    single = gm.Network([gm.Dense(20, 40, "gelu"), gm.Dense(40, 30, "tanh"), gm.Dense(30, 10)], rng=0)
    single.load_state_dict(double.state_dict())
    double.load_state_dict(single.state_dict())  # so that both hold the rounded values
    rng = np.random.default_rng(6)
    x, labels = rng.standard_normal((64, 20)).astype(np.float32), rng.integers(0, 10, 64)
    inputs = []
    for net in (single, double):
        _, dz = gm.losses.cross_entropy(net.forward(x), labels)
        inputs.append(net.backward(dz))
    np.testing.assert_allclose(inputs[0], inputs[1], rtol=0, atol=1e-4 * abs(inputs[1]).max())
    for (name, p), (_, q) in zip(single.named_parameters(), double.named_parameters(), strict=True):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.grad, q.grad, rtol=0, atol=1e-4 * abs(q.grad).max(), err_msg=name)


def test_gradient_equals_the_textbook_formulas(isa: str) -> None:
    """delta_L = dL/dz, delta_l = (delta_{l+1} W_{l+1}) f'(z_l), dW = delta^T h, db = sum of delta."""
    net = network(gm.Dense(4, 6, "tanh"), gm.Dense(6, 3))
    x, y = points((5, 4)), points((5, 3), seed=1)
    first, second = net[0], net[1]
    z1 = reference.dense(x, first.weight, first.bias)
    h1 = np.tanh(z1)
    z2 = reference.dense(h1, second.weight, second.bias)
    _, delta2 = reference.mse(z2, y)
    dh1, dw2, db2 = reference.dense_backward(h1, second.weight, delta2)
    delta1 = dh1 * reference.ACTIVATIONS["tanh"].df(z1, 1.0)
    dx, dw1, db1 = reference.dense_backward(x, first.weight, delta1)
    np.testing.assert_allclose(net.forward(x), z2, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(net.backward(delta2), dx, rtol=1e-12, atol=1e-13)
    for parameter, want in [
        (first.weight, dw1),
        (first.bias, db1),
        (second.weight, dw2),
        (second.bias, db2),
    ]:
        np.testing.assert_allclose(parameter.grad, want, rtol=1e-12, atol=1e-13)
