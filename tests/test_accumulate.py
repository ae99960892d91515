"""fit(accumulate=k): one update of k batches, with the gradient of the mean over all their samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, Doubling, gradients, killed_behind, weights
from optimizers import CASES

import gemmule as gm


def data(samples: int = 150, dtype: str = "float64") -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((samples, 20)).astype(dtype), rng.standard_normal((samples, 7)).astype(dtype)


def make_net(dtype: str = "float64") -> gm.Network:
    return gm.Network([gm.Dense(20, 33, "relu"), gm.Dropout(0.2), gm.Dense(33, 7)], rng=1, dtype=dtype)


def assert_close(a: gm.Network, b: gm.Network) -> None:
    """The same float64 terms in another order: some tens of steps of about 1e-16 each, times the growth of a
    difference through training, stay far under 1e-10."""
    for (name, p), (_, q) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-10, atol=1e-10, err_msg=name)


# Batches with panels in the working copy and without, a last update of fewer batches, of a part of one, of
# fewer than one.
@pytest.mark.parametrize(("batch", "k"), [(16, 3), (5, 4), (32, 2), (50, 3), (64, 5)])
@pytest.mark.parametrize("optimizer", [*CASES, "clip_norm", "ema"])
def test_k_batches_are_one_of_k_times_the_size(optimizer: str, batch: int, k: int) -> None:
    """Dropout included: its draws belong to the samples of an update."""
    x, y = data()
    options: dict[str, Any] = {"clip_norm": {"clip_norm": 0.1}, "ema": {"ema": 0.9}}.get(optimizer, {})
    make = CASES[optimizer].make if optimizer in CASES else CASES["adam"].make
    parts, whole = make_net(), make_net()
    found = parts.fit(x, y, loss="mse", optimizer=make(**options), epochs=3, batch_size=batch, accumulate=k)
    wanted = whole.fit(x, y, loss="mse", optimizer=make(**options), epochs=3, batch_size=batch * k)
    assert_close(parts, whole)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-10)
    assert parts._step == whole._step == 3 * -(-150 // (batch * k))


@pytest.mark.parametrize("kind", ["samples", "classes", "own loss"])
@pytest.mark.parametrize("batch", [6, 16])
def test_weights_are_shares_of_the_update(kind: str, batch: int) -> None:
    """A batch whose samples weigh nothing within an update that weighs something, and an update of such."""
    x, y = data()
    labels, weight = y.argmax(axis=1), np.random.default_rng(5).random(150)
    weight[16:32] = weight[96:150] = 0
    options: dict[str, Any] = {
        "loss": "cross_entropy",
        "sample_weight": weight,
        "metrics": ["accuracy", "f1"],
    }
    if kind == "classes":
        options["class_weight"] = "balanced"
    if kind == "own loss":
        options["loss"] = gm.losses.Custom(
            lambda p, t: (p**2).sum(axis=1) - p[np.arange(len(p)), t],
            lambda p, t: 2 * p - np.eye(7)[t],
        )
    nets = [make_net() for _ in range(2)]
    histories = [
        net.fit(
            x,
            labels,
            **options,
            optimizer=gm.Adam(1e-2),
            epochs=2,
            shuffle=False,
            batch_size=size,
            accumulate=k,
        )
        for net, size, k in zip(nets, (batch, 48), (48 // batch, 1), strict=True)
    ]
    assert_close(*nets)
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-10)


def test_it_is_the_gradient_of_the_mean(isa: str) -> None:
    """A linear layer against NumPy: 70 samples in batches of 16, three to an update, 48 and then 22. Sums of
    at most 70 products of about 1: errors far below 70 * 20 * 1e-16 a step."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 6)), rng.standard_normal((70, 2))
    net = gm.Network([gm.Dense(6, 2, bias=False)], rng=1, dtype="float64")
    w = np.array(net[0].weight)
    net.fit(
        x, y, loss="half_mse", optimizer=gm.SGD(0.5), epochs=2, batch_size=16, accumulate=3, shuffle=False
    )
    for _ in range(2):
        for rows in (slice(0, 48), slice(48, 70)):
            w -= 0.5 * ((x[rows] @ w.T - y[rows]) / 2).T @ x[rows] / len(x[rows])
    np.testing.assert_allclose(net[0].weight, w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [4, 16])
def test_small_integers_are_exact(isa: str, batch: int) -> None:
    """Two updates of 32 samples each: each sum is a multiple of 2^-12 below 2^11, which float32 holds."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(-2, 3, (64, 8)), rng.integers(-4, 5, (64, 2))
    nets = [gm.Network([gm.Dense(8, 2, init="zeros")], rng=0) for _ in range(2)]
    for net, size in zip(nets, (batch, 32), strict=True):
        net.fit(
            x,
            y,
            loss="half_mse",
            optimizer=gm.SGD(1.0),
            batch_size=size,
            accumulate=32 // size,
            shuffle=False,
        )
    assert weights(nets[0]) == weights(nets[1])
    assert gradients(nets[0]) == gradients(nets[1])


LAYERS: dict[str, Callable[[], list[gm.Layer]]] = {
    "shared": lambda: [first := gm.Dense(20, 20, "tanh"), first, gm.Dense(20, 7)],
    "python": lambda: [gm.Dense(20, 9, "tanh"), Doubling(), gm.Dense(9, 7)],
}


@pytest.mark.parametrize("layers", LAYERS)
def test_layers_whose_gradients_are_added_by_ops_of_their_own(isa: str, layers: str) -> None:
    x, y = data()
    parts, whole = (gm.Network(LAYERS[layers](), rng=1, dtype="float64") for _ in range(2))
    parts.fit(x, y, loss="mse", optimizer=gm.Adam(1e-3), epochs=2, batch_size=16, accumulate=3)
    whole.fit(x, y, loss="mse", optimizer=gm.Adam(1e-3), epochs=2, batch_size=48)
    assert_close(parts, whole)


def test_frozen_layers_stay() -> None:
    x, y = data()
    net = make_net()
    net[0].trainable = False
    frozen = net[0].weight.copy()
    net.fit(x, y, loss="mse", batch_size=16, accumulate=3)
    np.testing.assert_array_equal(net[0].weight, frozen)


@pytest.mark.parametrize("batch", [5, 16])
@pytest.mark.parametrize("optimizer", CASES)
def test_threads_do_not_change_a_bit(optimizer: str, batch: int) -> None:
    x, y = data(dtype="float32")
    trained = []
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net = make_net("float32")
        make = CASES[optimizer].make
        net.fit(x, y, loss="mse", optimizer=make(), epochs=2, batch_size=batch, accumulate=3)
        trained.append((weights(net), gradients(net)))
    gm.set_num_threads(None)
    assert trained.count(trained[0]) == len(trained)


def test_a_rate_an_update() -> None:
    x, y = data()
    asked: list[float] = []

    def rate(t: float) -> float:
        asked.append(t)
        return 0.01 / (t + 1)

    parts, whole = make_net(), make_net()
    for net, options in ((parts, {"batch_size": 16, "accumulate": 3}), (whole, {"batch_size": 48})):
        lr = gm.schedules.Lambda(rate, by="step")
        net.fit(x, y, loss="mse", optimizer=gm.SGD(lr), epochs=3, **options)
    assert_close(parts, whole)
    assert max(asked) == 3 * 4 - 1


@pytest.mark.parametrize("writes", [1, 2, 3, 5])
def test_resumed_within_an_epoch(writes: int, tmp_path: Path) -> None:
    """4 updates an epoch, a checkpoint after every third."""
    x, y = data()

    def fit(net: gm.Network, **more: Any) -> gm.Network:
        options = {"loss": "mse", "optimizer": gm.Adam(1e-2), "epochs": 3, "batch_size": 16, "accumulate": 3}
        net.fit(x, y, **options, callbacks=[gm.callbacks.Checkpoint(tmp_path / "fit", steps=3)], **more)
        return net

    whole = fit(make_net())
    with killed_behind(writes):
        fit(make_net())
    resumed = fit(make_net(), resume=tmp_path / "fit")
    assert weights(resumed) == weights(whole)
    with pytest.raises(ValueError, match="accumulate 3, this fit has 2"):
        make_net().fit(
            x, y, loss="mse", optimizer=gm.Adam(1e-2), epochs=3, batch_size=16, accumulate=2,
            callbacks=[gm.callbacks.Checkpoint(tmp_path / "fit", steps=3)], resume=tmp_path / "fit",
        )  # fmt: skip


@pytest.mark.parametrize("batch", [8, 16])
def test_divergence_leaves_the_last_update(batch: int) -> None:
    """Sample 100 is poisoned: with batches of 16 it is in the second batch of the third update."""
    x, y = data(160, "float32")
    x[100, 3] = np.inf
    k = 48 // batch
    net, twin = make_net("float32"), make_net("float32")
    with pytest.raises(gm.DivergenceError, match=rf"loss.*epoch 1, batch {100 // batch + 1}\b"):
        net.fit(x, y, loss="mse", batch_size=batch, accumulate=k, shuffle=False, optimizer=gm.SGD(0.01))
    twin.fit(
        x[:96], y[:96], loss="mse", batch_size=batch, accumulate=k, shuffle=False, optimizer=gm.SGD(0.01)
    )
    assert weights(net) == weights(twin)


def test_lbfgs_in_small_batches() -> None:
    pytest.importorskip("scipy")
    x, y = data()
    nets = [gm.Network.mlp([20, 9, 7], activation="tanh", rng=1, dtype="float64") for _ in range(2)]
    nets[0].fit(x, y, loss="mse", optimizer="lbfgs", epochs=5, batch_size=32, accumulate=5)
    nets[1].fit(x, y, loss="mse", optimizer="lbfgs", epochs=5, batch_size=None)
    assert_close(*nets)
    with pytest.raises(ValueError, match="LBFGS takes all 150"):
        nets[0].fit(x, y, loss="mse", optimizer="lbfgs", batch_size=32, accumulate=4)


@pytest.mark.parametrize(
    ("k", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_a_count_that_is_none(k: Any, kind: type[Exception]) -> None:
    x, y = data()
    with pytest.raises(kind, match="accumulate"):
        make_net().fit(x, y, loss="mse", accumulate=k)
