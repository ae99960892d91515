"""L-BFGS: that it is SciPy's on the network's loss, that it finds a known minimum, as PyTorch's does, and
what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, classification, classifier, fitted, regression, regressor, weights

import gemmule as gm

optimize = pytest.importorskip("scipy.optimize")

DECAY = 0.1


def line() -> tuple[gm.Network, Array, Array]:
    """A linear network and its data, float64."""
    x, y = regression()
    return gm.Network([gm.Dense(5, 2)], dtype="float64", rng=0), x.astype(float), y.astype(float)


def minimum(x: Array, y: Array) -> tuple[Array, Array]:
    """Weight and bias at which mean((x W^T + b - y)^2) + DECAY / 2 (|W|^2 + |b|^2) is least."""
    ones = np.hstack([x, np.ones((len(x), 1))])
    scale = 2 / y.size  # the mean is over samples and outputs
    hessian = scale * ones.T @ ones + DECAY * np.eye(6)
    solution = np.linalg.solve(hessian, scale * ones.T @ y)
    return solution[:5].T, solution[5]


def distance(weight: Any, bias: Any, x: Array, y: Array) -> float:
    best, shift = minimum(x, y)
    return float(np.hypot(np.linalg.norm(weight - best), np.linalg.norm(bias - shift)))


def test_a_known_minimum() -> None:
    """The Hessian is at least DECAY, so a gradient of g is at most g / DECAY from the minimum; no element of
    it is above the tolerance, of 12."""
    net, x, y = line()
    optimizer = gm.LBFGS(tolerance=1e-9, loss_tolerance=0, weight_decay=DECAY)
    history = net.fit(x, y, loss="mse", optimizer=optimizer, epochs=100, batch_size=None)
    assert history.epochs < 100  # it has converged
    assert distance(net[0].weight, net[0].bias, x, y) <= np.sqrt(12) * 1e-9 / DECAY


def test_pytorchs_minimum() -> None:
    torch: Any = pytest.importorskip("torch")
    net, x, y = line()
    w, b = (torch.tensor(np.array(p), requires_grad=True) for _, p in net.named_parameters())
    inputs, targets = torch.tensor(x), torch.tensor(y)
    optimizer = torch.optim.LBFGS(
        [w, b], max_iter=200, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Any:
        optimizer.zero_grad()
        loss = ((inputs @ w.T + b - targets) ** 2).mean() + DECAY / 2 * ((w**2).sum() + (b**2).sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    ours = gm.LBFGS(tolerance=1e-9, loss_tolerance=0, weight_decay=DECAY)
    net.fit(x, y, loss="mse", optimizer=ours, epochs=100, batch_size=None)
    apart = [
        np.linalg.norm(have - want.detach().numpy())
        for have, want in zip((net[0].weight, net[0].bias), (w, b), strict=True)
    ]
    assert np.hypot(*apart) <= 2 * np.sqrt(12) * 1e-9 / DECAY


def test_its_iterates_are_scipys() -> None:
    """On a network that is not convex: the first iterates, before rounding has had time to grow."""
    x, y = classification()
    net, hand = classifier(dtype="float64"), classifier(dtype="float64")
    parameters = [p for _, p in hand.named_parameters()]

    def function(flat: Array) -> tuple[float, Array]:
        at = 0
        for p in parameters:
            p[...] = flat[at : at + p.size].reshape(p.shape)
            at += p.size
        loss, dz = gm.losses.cross_entropy(hand.forward(x, training=True), y)
        hand.zero_grad()
        hand.backward(dz)
        return loss, np.concatenate([p.grad.ravel() for p in parameters])

    losses: list[float] = []
    start = np.concatenate([p.ravel() for p in parameters])
    optimize.minimize(
        function, start, jac=True, method="L-BFGS-B",
        callback=lambda intermediate_result: losses.append(intermediate_result.fun),
        options={"maxiter": 8, "maxcor": 5, "gtol": 1e-5, "ftol": 1e-9, "maxls": 20},
    )  # fmt: skip
    history = net.fit(x, y, loss="cross_entropy", optimizer=gm.LBFGS(history=5), epochs=8, batch_size=None)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
    assert history["loss"] == sorted(history["loss"], reverse=True)


def test_threads_do_not_change_a_bit() -> None:
    x, y = classification()
    seen = set()
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net = classifier()
        net.fit(x, y, loss="cross_entropy", optimizer=gm.LBFGS(), epochs=10, batch_size=None)
        seen.add(b"".join(weights(net).values()))
    gm.set_num_threads(None)
    assert len(seen) == 1


def test_frozen_parameters_stay() -> None:
    x, y = regression()
    net = regressor()
    net[0].trainable = False
    before = weights(net)
    net.fit(x, y, loss="mse", optimizer="lbfgs", epochs=5, batch_size=None)
    after = weights(net)
    assert [before[name] == after[name] for name in before] == [name.startswith("0.") for name in before]


def test_a_value_that_is_not_finite_leaves_the_last_iterate() -> None:
    x, y = regression()
    net, before = regressor(), weights(regressor())
    x[3, 2] = np.nan
    with pytest.raises(gm.DivergenceError, match="X itself holds NaN"):
        net.fit(x, y, loss="mse", optimizer=gm.LBFGS(), epochs=5, batch_size=None)
    assert weights(net) == before


def test_a_callback_that_raises_leaves_a_complete_iterate() -> None:
    x, y = regression()
    net, twin = regressor(), regressor()

    def fail(network: gm.Network, epoch: int, logs: dict[str, float]) -> None:
        if epoch == 3:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        net.fit(
            x,
            y,
            loss="mse",
            optimizer=gm.LBFGS(),
            epochs=9,
            batch_size=None,
            callbacks=[gm.callbacks.LambdaCallback(on_epoch_end=fail)],
        )
    twin.fit(x, y, loss="mse", optimizer=gm.LBFGS(), epochs=3, batch_size=None)
    assert weights(net) == weights(twin)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 16}, "batch_size is 16; LBFGS takes all 90 samples"),
        ({"shuffle": np.zeros((3, 90), int)}, "shuffle must be True or False"),
    ],
)
def test_what_takes_batches_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fitted([], optimizer=gm.LBFGS(), **{"batch_size": None, **options})


def test_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot go on from a checkpoint"):
        fitted([gm.callbacks.Checkpoint(tmp_path / "c.safetensors")], optimizer=gm.LBFGS(), batch_size=None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"history": 0}, "LBFGS: history is 0"),
        ({"line_search": 1.5}, "LBFGS: line_search is 1.5"),
        ({"tolerance": -1.0}, "LBFGS: tolerance"),
        ({"loss_tolerance": -1.0}, "LBFGS: loss_tolerance"),
        ({"weight_decay": -1.0}, "LBFGS: weight_decay"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gm.LBFGS(**settings)
