"""Optimizers against PyTorch's, and Lion and Muon against optax's: weights after several steps from the same
gradients, in float64. The references are compared always; these skip where the peer is absent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import Array

import gemmule as gm

STEPS = 20

# Weights, gradients and steps are of order 1; a step rounds some sixteen operations on them, in an order that
# need not be the peer's. RMSprop divides by the root of a mean that may be 0.01 of a gradient's square, and
# the centered one by what cancellation leaves of it, 0.01 again.
EPS = float(np.finfo(np.float64).eps)
ATOL = STEPS * 16 * EPS
PER_RULE = {"rmsprop": 10, "centered": 100}


def atol_of(name: str) -> float:
    factor = 1
    for part, times in PER_RULE.items():
        factor *= times if part in name else 1
    return factor * ATOL


def network() -> gm.Network:
    """A tall, a wide and a single-row matrix."""
    return gm.Network([gm.Dense(7, 33), gm.Dense(33, 5), gm.Dense(5, 1)], dtype="float64", rng=0)


def gradients_of(net: gm.Network) -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        yield {name: rng.standard_normal(p.shape) for name, p in net.named_parameters()}


def step(net: gm.Network, optimizer: gm.optim.Optimizer, grads: dict[str, Array]) -> None:
    for name, p in net.named_parameters():
        p.grad[...] = grads[name]
    optimizer.step(net)


def assert_weights(net: gm.Network, want: dict[str, Array], atol: float) -> None:
    for name, p in net.named_parameters():
        np.testing.assert_allclose(p, want[name], rtol=0, atol=atol, err_msg=name)


# -- PyTorch -------------------------------------------------------------------------------------------------

Make = Callable[..., gm.optim.Optimizer]  # takes the keywords of `Optimizer`
TORCH: dict[str, tuple[Make, str, dict[str, Any]]] = {
    "sgd": (lambda **k: gm.SGD(0.05, **k), "SGD", {"lr": 0.05}),
    "sgd decay": (
        lambda **k: gm.SGD(0.05, weight_decay=0.1, **k), "SGD", {"lr": 0.05, "weight_decay": 0.1}
    ),
    "momentum": (
        lambda **k: gm.SGD(0.02, momentum=0.9, weight_decay=0.01, **k), "SGD",
        {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01},
    ),
    "nesterov": (
        lambda **k: gm.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=0.01, **k), "SGD",
        {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (
        lambda **k: gm.Adam(0.01, (0.8, 0.99), 1e-6, weight_decay=0.1, **k), "Adam",
        {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamw": (
        lambda **k: gm.AdamW(0.01, weight_decay=0.1, **k), "AdamW", {"lr": 0.01, "weight_decay": 0.1}
    ),
    "rmsprop": (
        lambda **k: gm.RMSprop(0.01, weight_decay=0.01, **k), "RMSprop", {"lr": 0.01, "weight_decay": 0.01}
    ),
    "rmsprop momentum": (
        lambda **k: gm.RMSprop(0.01, 0.9, momentum=0.5, **k), "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.5},
    ),
    "rmsprop centered": (
        lambda **k: gm.RMSprop(0.01, 0.9, 1e-4, momentum=0.5, centered=True, **k), "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "momentum": 0.5, "centered": True},
    ),
    "adagrad": (
        lambda **k: gm.Adagrad(0.05, 0.01, 0.1, weight_decay=0.01, **k), "Adagrad",
        {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1, "weight_decay": 0.01},
    ),
}  # fmt: skip


class Torchs:
    """The network's weights, trained by PyTorch."""

    def __init__(self, net: gm.Network, rule: str, settings: dict[str, Any]) -> None:
        self.torch: Any = pytest.importorskip("torch")
        if not hasattr(self.torch.optim, rule):
            pytest.skip(f"this PyTorch has no {rule}")
        self.parameters = {
            name: self.torch.nn.Parameter(self.torch.tensor(np.array(p)))
            for name, p in net.named_parameters()
        }
        self.optimizer = getattr(self.torch.optim, rule)(list(self.parameters.values()), **settings)

    def give(self, grads: dict[str, Array]) -> None:
        for name, p in self.parameters.items():
            p.grad = self.torch.tensor(grads[name])

    def weights(self) -> dict[str, Array]:
        return {name: p.detach().numpy() for name, p in self.parameters.items()}


@pytest.mark.parametrize("name", TORCH)
def test_pytorchs_steps(name: str) -> None:
    make, rule, settings = TORCH[name]
    net, optimizer = network(), make()
    peer = Torchs(net, rule, settings)
    for grads in gradients_of(net):
        step(net, optimizer, grads)
        peer.give(grads)
        peer.optimizer.step()
    assert_weights(net, peer.weights(), atol_of(name))


@pytest.mark.parametrize("name", ["momentum", "adamw", "rmsprop", "adagrad"])
def test_pytorchs_clipping(name: str) -> None:
    make, rule, settings = TORCH[name]
    net, optimizer = network(), make(clip_value=0.8, clip_norm=5.0)
    peer = Torchs(net, rule, settings)
    clip = peer.torch.nn.utils
    for grads in gradients_of(net):
        step(net, optimizer, grads)
        peer.give(grads)
        clip.clip_grad_value_(peer.parameters.values(), 0.8)
        assert clip.clip_grad_norm_(peer.parameters.values(), 5.0) > 5
        peer.optimizer.step()
    assert_weights(net, peer.weights(), atol_of(name))


def test_pytorchs_running_average() -> None:
    net, optimizer = network(), gm.SGD(0.05, momentum=0.9, ema=0.7)
    peer = Torchs(net, "SGD", {"lr": 0.05, "momentum": 0.9})
    utils: Any = pytest.importorskip("torch.optim.swa_utils")
    module = peer.torch.nn.ParameterList(peer.parameters.values())
    average = utils.AveragedModel(module, multi_avg_fn=utils.get_ema_multi_avg_fn(0.7))
    average.update_parameters(module)  # the first time it copies: the parameters before the first step
    for grads in gradients_of(net):
        step(net, optimizer, grads)
        peer.give(grads)
        peer.optimizer.step()
        average.update_parameters(module)
    have = optimizer.average(net)
    for (name, mean), want in zip(have.items(), average.module, strict=True):
        np.testing.assert_allclose(mean, want.detach().numpy(), rtol=0, atol=ATOL, err_msg=name)


def test_pytorchs_max_norm() -> None:
    """renorm divides by norm + 1e-7: a row is too short by at most 1e-7 of max_norm, and the difference of
    two rows does not grow from step to step."""
    net, optimizer = network(), gm.SGD(0.05, max_norm=0.9)
    peer = Torchs(net, "SGD", {"lr": 0.05})
    for grads in gradients_of(net):
        step(net, optimizer, grads)
        peer.give(grads)
        peer.optimizer.step()
        with peer.torch.no_grad():
            for p in peer.parameters.values():
                if p.ndim > 1:
                    p.copy_(peer.torch.renorm(p, 2, 0, 0.9))
    assert_weights(net, peer.weights(), STEPS * 1e-7)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_pytorchs_muon(nesterov: bool, adjust: str) -> None:
    """PyTorch rounds the direction to bfloat16 at each of its three products a round, 2^-9 at most of
    elements whose matrix has norm sqrt(rank) or less; the last round's are magnified by none that follow, and
    those before it by at most the slope 3.4445 of a round where singular values are still small, and by less
    than 1 once they are near 1. So the direction is within 3 x 2^-9 x 5 rounds x sqrt(rank) in the 2-norm,
    twice that where the slope is met once more, for singular values that all are of one size."""
    rng = np.random.default_rng(0)
    net = gm.Network([gm.Dense(12, 12, bias=False)], dtype="float64", rng=0)
    settings = {"lr": 0.1, "weight_decay": 0.1, "nesterov": nesterov, "adjust_lr_fn": adjust}
    peer = Torchs(net, "Muon", settings)
    optimizer = gm.Muon(0.1, nesterov=nesterov, weight_decay=0.1, adjust_lr_fn=adjust)
    orthogonal, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    before = np.array(net[0].weight)
    for _ in range(4):
        step(net, optimizer, {"0.weight": orthogonal})
        peer.give({"0.weight": orthogonal})
        peer.optimizer.step()
    factor = 0.2 * np.sqrt(12) if adjust == "match_rms_adamw" else 1
    bound = 4 * 0.1 * factor * 2 * 3 * 2.0**-9 * 5 * np.sqrt(12)
    have, want = np.array(net[0].weight), peer.weights()["0.weight"]
    assert np.linalg.norm(have - want) <= bound < np.linalg.norm(want - before) / 2


# -- optax ---------------------------------------------------------------------------------------------------


@contextmanager
def optaxs() -> Iterator[tuple[Any, Any]]:
    """optax and jax.numpy, in float64."""
    optax: Any = pytest.importorskip("optax")
    jax: Any = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield optax, jax.numpy
    finally:
        jax.config.update("jax_enable_x64", before)


def follow(
    net: gm.Network, optimizer: gm.optim.Optimizer, optax: Any, numpy: Any, peer: Any
) -> dict[str, Any]:
    weights = {name: numpy.asarray(np.array(p)) for name, p in net.named_parameters()}
    state = peer.init(weights)
    for grads in gradients_of(net):
        step(net, optimizer, grads)
        updates, state = peer.update({name: numpy.asarray(g) for name, g in grads.items()}, state, weights)
        weights = optax.apply_updates(weights, updates)
    return weights


def test_optaxs_lion() -> None:
    """No sum of these normal deviates comes so near to 0 that its sign would hang on rounding."""
    with optaxs() as (optax, numpy):
        net = network()
        peer = optax.lion(0.01, 0.85, 0.95, weight_decay=0.1)
        want = follow(net, gm.Lion(0.01, (0.85, 0.95), weight_decay=0.1), optax, numpy, peer)
        assert_weights(net, want, ATOL)


@pytest.mark.parametrize("consistent", [False, True])
def test_optaxs_muon(consistent: bool) -> None:
    """optax's weights are (n_in, n_out), its Adam has Nesterov's momentum only where Muon's has, and what it
    divides the momentum by does not change its direction. It adds eps to the norm, which here is 0 for both.
    A round of Newton-Schulz multiplies what was rounded before it by at most its slope at 0, 3.4445: five of
    them by 485."""
    with optaxs() as (optax, numpy):
        muon: Any = pytest.importorskip("optax.contrib").muon
        net = network()
        axes: Any = pytest.importorskip("optax.contrib").MuonDimensionNumbers(1, 0)
        matrices = {name: axes if p.ndim == 2 else None for name, p in net.named_parameters()}
        peer = muon(
            0.02,
            beta=0.9,
            eps=0.0,
            weight_decay=0.1,
            nesterov=False,
            adam_weight_decay=0.01,
            adam_learning_rate=0.01,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=0.2 if consistent else None,
        )
        ours = gm.Muon(
            0.02,
            0.9,
            nesterov=False,
            weight_decay=0.1,
            eps=0.0,
            adjust_lr_fn="match_rms_adamw" if consistent else "original",
            adamw_ratio=0.5,
            adamw_eps=0.0,
            adamw_weight_decay=0.01,
        )
        assert_weights(net, follow(net, ours, optax, numpy, peer), 485 * ATOL)
