"""With batches of 16 or more and more than a few parameters, updates ride on the ops that make gradients: of
a copy of the parameters in which weights lie in panels, or, where batches are large, of the parameters where
they lie. Both must do what all gradients and then a step do."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import Array, gradients, weights

import gemmule as gm

pytestmark = pytest.mark.usefixtures("riding")

OPTIMIZERS: list[Callable[[], gm.optim.Optimizer]] = [
    lambda: gm.SGD(0.01, weight_decay=1e-3),
    lambda: gm.SGD(0.01, momentum=0.9, nesterov=True),
    lambda: gm.Adam(1e-3),
    lambda: gm.AdamW(1e-3),
]

# (widths, samples, batch): odd sizes, one output, whole and partial panels, more rows and columns than a
# block of the loops takes, a batch that is summed in several depths, a last batch of one sample, samples of
# 2 KB, which are gathered instead of listed; samples whose strips fit a cache in the last batch alone; a
# gradient for which the team packs together, in two blocks of columns.
NETWORKS = [
    ([20, 33, 7], 80, 32),
    ([5, 17, 1], 48, 16),
    ([100, 500, 400, 3], 150, 50),
    ([40, 64, 64, 2], 900, 900),
    ([16, 32, 16], 65, 16),
    ([256, 20, 3], 70, 32),
    ([700, 48, 3], 444, 384),
    ([90, 620, 600, 3], 140, 70),
]


def data(widths: list[int], samples: int, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((samples, widths[0])).astype(dtype), rng.standard_normal((samples, widths[-1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("widths", "samples", "batch"), NETWORKS)
def test_a_long_run_equals_short_ones(
    isa: str,
    widths: list[int],
    samples: int,
    batch: int,
    optimizer: Callable[[], gm.optim.Optimizer],
    dtype: str,
) -> None:
    x, y = data(widths, samples, dtype)
    epochs = 5
    long, short = (gm.Network.mlp(widths, activation="relu", rng=1, dtype=dtype) for _ in range(2))
    long.fit(x, y, loss="mse", optimizer=optimizer(), epochs=epochs, batch_size=batch, shuffle=False)
    kept = optimizer()
    for _ in range(epochs):
        for at in range(0, samples, 3 * batch):
            rows = slice(at, at + 3 * batch)
            short.fit(x[rows], y[rows], loss="mse", optimizer=kept, epochs=1, batch_size=batch, shuffle=False)
    assert weights(long) == weights(short)
    assert gradients(long) == gradients(short)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("widths", "samples", "batch"), NETWORKS)
def test_updates_ride_or_follow_alike(
    isa: str,
    riding: str,
    force_training: Callable[[str], None],
    widths: list[int],
    samples: int,
    batch: int,
    optimizer: Callable[[], gm.optim.Optimizer],
) -> None:
    """Both add the same float64 terms, perhaps in another order: some tens of steps of about 1e-16 each,
    times the growth of a difference through training, stay far under 1e-10."""
    x, y = data(widths, samples, "float64")
    trained = []
    for form in (riding, "stepped"):
        force_training(form)
        net = gm.Network.mlp(widths, activation="tanh", rng=1, dtype="float64")
        net.fit(x, y, loss="mse", optimizer=optimizer(), epochs=3, batch_size=batch)
        trained.append([values for _, p in net.named_parameters() for values in (p, p.grad)])
    for copy, parameter in zip(*trained, strict=True):
        np.testing.assert_allclose(copy, parameter, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("widths", "samples", "batch"), NETWORKS)
def test_nothing_is_read_that_was_not_written(
    isa: str,
    fill_workspaces: Callable[[int | None], None],
    widths: list[int],
    samples: int,
    batch: int,
    optimizer: Callable[[], gm.optim.Optimizer],
) -> None:
    """What pads the last panel of a gradient lay in the workspace, and a NaN there ended the run."""
    x, y = data(widths, samples, "float32")
    trained = []
    for byte in (None, 0xFF):
        fill_workspaces(byte)
        net = gm.Network.mlp(widths, activation="relu", rng=1)
        net.fit(x, y, loss="mse", optimizer=optimizer(), epochs=2, batch_size=batch)
        trained.append(weights(net))
    assert trained[0] == trained[1]


def test_threads_do_not_change_a_bit(isa: str, riding: str) -> None:
    try:
        for widths, samples, batch in NETWORKS:
            x, y = data(widths, samples, "float32")
            trained = set()
            for count in (1, 2, 3, 7):
                gm.set_num_threads(count)
                net = gm.Network.mlp(widths, activation="relu", rng=1)
                net.fit(x, y, loss="mse", optimizer="adam", epochs=1, batch_size=batch)
                trained.add((*weights(net).values(), *gradients(net).values()))
            assert len(trained) == 1, widths
    finally:
        gm.set_num_threads(None)


LAYERS: list[Callable[[], list[gm.Layer]]] = [
    lambda: [gm.Flatten(), gm.Dense(20, 9, "relu"), gm.Dense(9, 3)],
    lambda: [gm.Flatten(), gm.Dropout(0.3), gm.Dense(20, 9, "tanh"), gm.Dense(9, 3)],
    lambda: [gm.Flatten(), gm.Activation("tanh"), gm.Dense(20, 3)],
]


@pytest.mark.parametrize("layers", LAYERS)
def test_samples_of_any_shape_wherever_they_lie(
    isa: str, riding: str, force_training: Callable[[str], None], layers: Callable[[], list[gm.Layer]]
) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((90, 4, 5)), rng.standard_normal((90, 3))
    trained = []
    for form in (riding, "stepped"):
        force_training(form)
        net = gm.Network(layers(), rng=1, dtype="float64")
        net.fit(x, y, loss="mse", optimizer=gm.Adam(1e-3), epochs=3, batch_size=16)
        trained.append([p for _, p in net.named_parameters()])
    for copy, parameter in zip(*trained, strict=True):
        np.testing.assert_allclose(copy, parameter, rtol=1e-10, atol=1e-10)


def test_the_state_of_the_optimizer_goes_on() -> None:
    x, y = data([20, 33, 7], 80, "float32")
    once, twice = (gm.Network.mlp([20, 33, 7], rng=1) for _ in range(2))
    once.fit(x, y, loss="mse", optimizer=gm.Adam(1e-3), epochs=8, batch_size=16, shuffle=False)
    adam = gm.Adam(1e-3)
    for _ in range(2):
        twice.fit(x, y, loss="mse", optimizer=adam, epochs=4, batch_size=16, shuffle=False)
    assert weights(once) == weights(twice)


def test_frozen_parameters_and_those_of_other_networks_stay() -> None:
    x, y = data([20, 33, 7], 80, "float32")
    net = gm.Network([gm.Dense(20, 33, "relu"), gm.Dense(33, 33, "relu"), gm.Dense(33, 7)], rng=1)
    net[1].trainable = False
    frozen = net[1].weight.copy()
    net.fit(x, y, loss="mse", optimizer=gm.SGD(0.05), epochs=4, batch_size=16)
    np.testing.assert_array_equal(net[1].weight, frozen)
    last = net[2].weight.copy()
    front = net[:2]
    front.fit(x, np.tanh(x[:, :1]) * np.ones(33), loss="mse", optimizer=gm.SGD(0.05), epochs=4, batch_size=16)
    np.testing.assert_array_equal(net[2].weight, last)
    np.testing.assert_array_equal(net[1].weight, frozen)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_too_large_to_bound_are_looked_at_first(
    optimizer: Callable[[], gm.optim.Optimizer],
) -> None:
    """Inputs of 1e6 and targets of 1e6: no bound below 1e9 can be given, the steps are sound all the same."""
    x, y = (1e6 * values for values in data([20, 33, 7], 80, "float64"))
    long, short = (gm.Network.mlp([20, 33, 7], rng=1, dtype="float64") for _ in range(2))
    first, second = optimizer(), optimizer()
    first.lr = second.lr = 1e-15
    long.fit(x, y, loss="mse", optimizer=first, epochs=3, batch_size=16, shuffle=False)
    for _ in range(3):
        for at in range(0, 80, 16):
            rows = slice(at, at + 16)
            short.fit(x[rows], y[rows], loss="mse", optimizer=second, epochs=1, batch_size=16, shuffle=False)
    assert weights(long) == weights(short)
    assert gradients(long) == gradients(short)


def test_divergence_leaves_the_step_before_and_of_a_copy_no_gradients(riding: str) -> None:
    x, y = data([20, 33, 7], 160, "float32")
    net, twin = (gm.Network.mlp([20, 33, 7], rng=1) for _ in range(2))
    x[100, 3] = np.inf
    before = gradients(net)
    with pytest.raises(gm.DivergenceError, match=r"batch 7\b"):
        net.fit(x, y, loss="mse", optimizer=gm.SGD(0.01), epochs=2, batch_size=16, shuffle=False)
    twin.fit(x[:96], y[:96], loss="mse", optimizer=gm.SGD(0.01), epochs=1, batch_size=16, shuffle=False)
    assert weights(net) == weights(twin)
    assert riding != "copied" or gradients(net) == before


@pytest.mark.parametrize(
    ("widths", "batch", "copied", "rides"),
    [
        ([64, 122, 2], 32, False, False),
        ([64, 123, 2], 32, True, True),
        ([64, 123, 2], 15, False, False),
        ([64, 973, 2], 15, False, False),
        ([64, 1000, 2], 15, False, True),
        ([2900, 2889, 2], 64, True, True),
        ([2900, 2900, 2], 64, False, True),
        ([64, 123, 2], 255, True, True),
        ([64, 123, 2], 256, False, False),
        ([1000, 1000, 2], 334, False, True),
        ([1000, 1000, 2], 335, False, False),
    ],
)
def test_batch_and_parameters_choose_the_form(
    force_training: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    widths: list[int],
    batch: int,
    copied: bool,
    rides: bool,
) -> None:
    """Up to 32 KB of parameters stay: 122 x 67 + 2 floats are fewer than 8192, 123 x 67 + 2 more; more than
    32 MB are not copied: 2889 x 2903 + 2 floats are fewer than 8,388,608, 2900 x 2903 + 2 more. From 256 KB
    on updates ride, on gradients of 1,003,002 elements up to a batch of 334 rows of 3,002."""
    force_training("")
    gm.Network.mlp(widths, activation="relu").plan(batch, training=True)
    text = capsys.readouterr().out
    assert ("weights in panels" in text) == copied
    assert ("+ update" in text) == rides


def test_bytes_decide_not_numbers(
    force_training: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    force_training("")
    gm.Network.mlp([64, 122, 2], activation="relu", dtype="float64").plan(32, training=True)
    assert "weights in panels" in capsys.readouterr().out
