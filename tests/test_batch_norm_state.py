"""The state of `gm.BatchNorm`: in files, copies and checkpoints, and committed with whole steps alone."""

import copy
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import points
from helpers import killed_behind
from norm_networks import Array, bits, convolutional, data, network

import gemmule as gm

# -- state ---------------------------------------------------------------------------------------------------


def trained(**options: Any) -> gm.Network:
    net = convolutional(**options)
    x, y = data()
    net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=32)
    return net


def test_state_is_saved_and_copied(tmp_path: Path) -> None:
    net, (x, _) = trained(), data()
    assert [name for name, _ in net.named_state()] == [
        f"{i}.running_{what}" for i in (1, 3, 6) for what in ("mean", "var")
    ]
    assert not any("running" in name for name, _ in net.named_parameters())
    assert list(net.state_dict())[1:5] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert net[1].running_mean.any()
    net.save(tmp_path / "net.safetensors")
    fresh = convolutional()
    fresh.load_state_dict(net.state_dict())
    for other in (
        gm.load(tmp_path / "net.safetensors"),
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        fresh,
    ):
        assert bits(other) == bits(net)
        assert repr(other) == repr(net)
        np.testing.assert_array_equal(other.predict(x), net.predict(x))
    copied = copy.deepcopy(net)
    copied.forward(x, training=True)
    assert bits(copied) != bits(net)


def test_state_is_a_view_to_read_and_assign() -> None:
    net = network((3,), gm.BatchNorm())
    net[0].running_mean[1] = 5
    net[0].running_var = [1, 4, 9]
    np.testing.assert_allclose(net.predict(np.full((1, 3), 5.0)), [[5, 0, 5 / 3]], rtol=1e-5)
    with pytest.raises(gm.ShapeError, match="running_var"):
        net[0].running_var = np.ones(2)
    state = net.state_dict()
    for bad in ({**state, "0.running_mean": np.ones(4)}, {k: v for k, v in state.items() if "var" not in k}):
        with pytest.raises(ValueError, match="running"):
            net.load_state_dict(bad)
    net.load_state_dict({"0.running_mean": np.zeros(3)}, strict=False)
    assert not net[0].running_mean.any()


def test_summary_and_counts() -> None:
    net = convolutional()
    text = net.summary()
    assert "BatchNorm(5, relu)" in text and "BatchNorm(7, gelu, momentum=0.3)" in text
    row = next(line for line in text.splitlines() if "BatchNorm(5" in line)
    assert " 10" in row  # weight and bias, not the state
    assert sum(p.size for p in net.parameters()) == 90 + 10 + 84 + 8 + 168 + 14 + 24


def test_averages_and_the_best_epoch_take_the_state_along() -> None:
    x, y = data()
    net, optimizer = convolutional(), gm.Adam(1e-2, ema=0.9)
    stop = gm.callbacks.EarlyStopping(monitor="loss", patience=1, restore_best=True)
    net.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=2, batch_size=32, callbacks=[stop])
    before = bits(net)
    with optimizer.averaged(net):
        assert bits(net)["1.running_mean"] == before["1.running_mean"]
        assert bits(net)["1.weight"] != before["1.weight"]
    assert bits(net) == before


def test_bad_data_changes_nothing() -> None:
    net = trained()
    before = bits(net)
    for x in (np.ones((4, 6, 5, 3)), np.ones((4, 5, 6, 2))):
        for call in (net.predict, lambda x: net.forward(x, training=True)):
            with pytest.raises(gm.ShapeError):
                call(x)
    assert bits(net) == before


# -- steps commit whole --------------------------------------------------------------------------------------


def test_a_diverging_step_leaves_the_state_of_the_last_complete_one() -> None:
    x, y = data()
    x[70, 2] = np.inf
    net, twin = convolutional(), convolutional()
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 32, "shuffle": False}
    with pytest.raises(gm.DivergenceError, match=r"batch 3\b"):
        net.fit(x, y, **options, epochs=3)
    twin.fit(x[:64], y[:64], **options, epochs=1)
    assert bits(net) == bits(twin)


def test_an_update_that_overflows_leaves_it_too() -> None:
    """The gradient is finite, the step is not: the forward pass has already made the next statistics."""
    x, y = data()
    net = convolutional()
    before = bits(net)
    with pytest.raises(gm.DivergenceError):
        net.fit(x, y, loss="cross_entropy", batch_size=96, optimizer=gm.SGD(1e38), epochs=50)
    assert all(np.isfinite(a).all() for a in net.state_dict().values())
    net = convolutional()
    net[7].weight[...] = 3e38
    kept = bits(net)
    with pytest.raises(gm.DivergenceError):
        net.fit(x, y, loss="cross_entropy", batch_size=96)
    assert bits(net) == kept != before


class Failing(gm.Layer):
    """Raises in its n-th backward, or forward."""

    def __init__(self, at: int, where: str) -> None:
        self.at, self.where, self.done = at, where, 0

    def forward(self, x: Array) -> Array:
        self._count("forward")
        return x

    def backward(self, dy: Array) -> Array:
        self._count("backward")
        return dy

    def _count(self, where: str) -> None:
        self.done += where == self.where
        if where == self.where and self.done == self.at:
            raise ZeroDivisionError


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_exception_leaves_it_too(where: str) -> None:
    x, y = data(96, "float64")
    rows = x.reshape(96, -1)
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 32, "shuffle": False}

    def make(at: int) -> gm.Network:
        layers = [
            gm.BatchNorm(),
            gm.Dense(60, 8),
            gm.BatchNorm(8, "relu"),
            Failing(at, where),
            gm.Dense(8, 3),
        ]
        return network((60,), *layers)

    net, twin = make(3), make(1000)
    with pytest.raises(ZeroDivisionError):
        net.fit(rows, y, **options, epochs=2)
    twin.fit(rows[:64], y[:64], **options, epochs=1)
    assert bits(net) == bits(twin)
    if where == "forward":
        net = make(1)
        before = bits(net)
        with pytest.raises(ZeroDivisionError):
            net.forward(rows, training=True)
        assert bits(net) == before


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_it_too() -> None:
    """Parameters and state must be those after some one number of steps."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4096, 256)).astype(np.float32), rng.integers(0, 10, 4096)
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 4096, "shuffle": False}

    def build() -> gm.Network:
        layers = [gm.Dense(256, 256), gm.BatchNorm(256, "relu"), gm.Dense(256, 10)]
        return network((256,), *layers, dtype="float32")

    net = build()
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, **options, optimizer=gm.SGD(1e-3), epochs=10**6)
    timer.join()
    twin, optimizer, target = build(), gm.SGD(1e-3), bits(net)
    for _ in range(1000):
        if bits(twin) == target:
            break
        twin.fit(x, y, **options, optimizer=optimizer, epochs=1)
    else:
        pytest.fail("the state is not that of a whole number of steps")


def test_accumulated_batches_are_one_step() -> None:
    """Each batch has its own statistics; the running ones follow all of them, and only whole steps."""
    x, y = data(64, "float64")
    net, twin = convolutional(dtype="float64"), convolutional(dtype="float64")
    options: dict[str, Any] = {"loss": "cross_entropy", "shuffle": False, "optimizer": gm.SGD(0.1)}
    net.fit(x, y, **options, batch_size=16, accumulate=4)
    twin.zero_grad()
    for i in range(0, 64, 16):
        _, dz = gm.losses.cross_entropy(twin.forward(x[i : i + 16], training=True), y[i : i + 16])
        twin.backward(dz / 4)
    gm.SGD(0.1).step(twin)
    for (name, a), b in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)
    x[50, 2] = np.nan  # in the last batch of the step
    again = convolutional(dtype="float64")
    before = bits(again)
    with pytest.raises(gm.DivergenceError):
        again.fit(x, y, **options, batch_size=16, accumulate=4)
    assert bits(again) == before


@pytest.mark.parametrize("writes", [1, 2, 4])
def test_a_resumed_run_ends_with_the_same_bits(writes: int, tmp_path: Path) -> None:
    x, y = data()

    def fit(net: gm.Network, **more: Any) -> gm.Network:
        checkpoint = gm.callbacks.Checkpoint(tmp_path / "fit", steps=2)
        options: dict[str, Any] = {
            "loss": "cross_entropy",
            "epochs": 3,
            "batch_size": 20,
            "metrics": ["accuracy"],
        }
        validation = {"validation_data": (x[:30], y[:30])}
        net.fit(x, y, **options, **validation, optimizer=gm.Adam(1e-2), callbacks=[checkpoint], **more)
        return net

    whole = fit(convolutional())
    with killed_behind(writes):
        fit(convolutional())
    assert bits(fit(convolutional(), resume=tmp_path / "fit")) == bits(whole)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_a_bit(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((160, 10, 9, 3)), rng.integers(0, 4, 160)
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            layers = [
                gm.Conv2d(3, 32, 3), gm.BatchNorm(32, "relu"), gm.Conv2d(32, 10, 3), gm.BatchNorm(10, "silu"),
                gm.GlobalAvgPool2d(), gm.Dense(10, 4),
            ]  # fmt: skip
            net = network((10, 9, 3), *layers, dtype=dtype)
            net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=64)
            results.add((*bits(net).values(), net.predict(x).tobytes()))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


def test_an_iteration_of_lbfgs_moves_it_once() -> None:
    """Whatever the line search has tried. The first layer's statistics are those of the data."""
    pytest.importorskip("scipy")
    x, y = points((30, 4)) + 3, points((30, 2), seed=1)
    net = network((4,), gm.BatchNorm(), gm.Dense(4, 6), gm.BatchNorm(6, "tanh"), gm.Dense(6, 2))
    history = net.fit(x, y, loss="mse", optimizer="lbfgs", epochs=10, batch_size=None)
    assert history["loss"][-1] < history["loss"][0]
    share = 1 - 0.9**history.epochs
    np.testing.assert_allclose(net[0].running_mean, share * x.mean(axis=0), rtol=1e-12)
    assert all(np.isfinite(a).all() for a in net.state_dict().values())
