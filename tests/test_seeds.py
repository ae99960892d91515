"""The five reference runs: float32 training from a given start against a framework's record of each epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gemmule as gm

Run = dict[str, NDArray[Any]]


def scaled_tanh() -> gm.Activation:
    return gm.Activation((lambda z: 2 * np.tanh(z), lambda z: 2 * (1 - np.tanh(z) ** 2)))


def train(run: Run, layers: list[gm.Layer], loss: str, rate: float) -> tuple[gm.Network, gm.History]:
    """Full batches, or batches of 32 in the run's own order of samples."""
    net = gm.Network(layers, rng=0)
    dense = [layer for layer in net if isinstance(layer, gm.Dense)]
    for number, layer in enumerate(dense, start=1):
        layer.weight = run[f"init_W{number}"]
        layer.bias = run[f"init_b{number}"]
    order = run.get("order")
    history = net.fit(
        run["X"],
        run["y"],
        loss=loss,
        optimizer=gm.SGD(rate),
        epochs=len(run["loss"]),
        batch_size=len(run["X"]) if order is None else 32,
        shuffle=False if order is None else order,
    )
    return net, history


RUNS = {
    "linear_2_1": (lambda: [gm.Dense(2, 1)], "mse", 0.01),
    "regression_2_10_1": (lambda: [gm.Dense(2, 10, "relu"), gm.Dense(10, 1)], "mse", 0.01),
    "regression_2_10_1_minibatch32": (lambda: [gm.Dense(2, 10, "relu"), gm.Dense(10, 1)], "mse", 0.01),
    "regression_scaled_tanh": (lambda: [gm.Dense(2, 10), scaled_tanh(), gm.Dense(10, 1)], "mse", 0.01),
    "classify_2_5_1_bce": (lambda: [gm.Dense(2, 5, "relu"), gm.Dense(5, 1, "sigmoid")], "bce", 0.5),
}


@pytest.mark.parametrize("name", RUNS)
def test_reference_run_is_followed(isa: str, shared_data: Path, name: str) -> None:
    """Loss within 1e-4 relative at every epoch; weights and the last gradient within 1e-4 at the end."""
    with np.load(shared_data / "seeds" / f"{name}.npz") as file:
        run = dict(file)
    layers, loss, rate = RUNS[name]
    net, history = train(run, layers(), loss, rate)
    np.testing.assert_allclose(history["loss"], run["loss"], rtol=1e-4, atol=0)
    dense = [layer for layer in net if isinstance(layer, gm.Dense)]
    for number, layer in enumerate(dense, start=1):
        for letter, parameter in (("W", layer.weight), ("b", layer.bias)):
            np.testing.assert_allclose(parameter, run[f"final_{letter}{number}"], rtol=0, atol=1e-4)
            np.testing.assert_allclose(parameter.grad, run[f"last_grad_{letter}{number}"], rtol=0, atol=1e-4)


def test_linear_regression_ends_where_the_text_says(isa: str, shared_data: Path) -> None:
    """y = 3 x0 - 2 x1 + 1 after 200 steps of SGD 0.01: four printed digits."""
    with np.load(shared_data / "seeds" / "linear_2_1.npz") as file:
        net, history = train(dict(file), [gm.Dense(2, 1)], "mse", 0.01)
    np.testing.assert_allclose(net[0].weight, [[2.9117, -1.8449]], rtol=0, atol=5e-5)
    np.testing.assert_allclose(net[0].bias, [0.8718], rtol=0, atol=5e-5)
    assert history["loss"][-1] == pytest.approx(0.0310, abs=5e-5)
