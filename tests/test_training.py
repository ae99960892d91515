"""`fit`: the loop that it documents, its histories, orders of samples, optimizers and randomness."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from helpers import Array, classification, classifier, weights

import gemmule as gm

Optimizer = Callable[[], Any]
OPTIMIZERS = {
    "sgd": lambda: gm.SGD(0.1),
    "momentum": lambda: gm.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda: gm.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: gm.Adam(0.01, weight_decay=1e-3),
    "adamw": lambda: gm.AdamW(0.01, weight_decay=0.1),
}
REFERENCES = {
    "sgd": lambda: reference.SGD(0.1),
    "momentum": lambda: reference.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda: reference.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: reference.Adam(0.01, weight_decay=1e-3),
    "adamw": lambda: reference.Adam(0.01, weight_decay=0.1, decoupled=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_is_the_loop_written_by_hand(isa: str, name: str) -> None:
    """forward, loss, backward, step, batch after batch; the last batch holds the ten samples left.

    Both add the same float64 terms, perhaps in another order: 30 steps of about 1e-16 each, times the growth
    of a difference through training, stay far under 1e-10.
    """
    x, y = classification()
    net, hand = classifier(dtype="float64"), classifier(dtype="float64")
    history = net.fit(
        x, y, loss="cross_entropy", optimizer=OPTIMIZERS[name](), epochs=5, batch_size=16, shuffle=False
    )
    optimizer, losses = OPTIMIZERS[name](), []
    for _ in range(5):
        total = 0.0
        for start in range(0, len(x), 16):
            batch = slice(start, start + 16)
            loss, dz = gm.losses.cross_entropy(hand.forward(x[batch], training=True), y[batch])
            hand.zero_grad()
            hand.backward(dz)
            optimizer.step(hand)
            total += loss * len(x[batch])
        losses.append(total / len(x))
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)
    for (label, p), (_, q) in zip(net.named_parameters(), hand.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-12, err_msg=label)
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-8, atol=1e-12, err_msg=label)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_step_equals_the_formula(isa: str, name: str, dtype: str) -> None:
    """Ten steps from given gradients; each rounds a few operations on weights and steps of order 1."""
    net = gm.Network([gm.Dense(7, 33)], dtype=dtype, rng=0)
    rng = np.random.default_rng(1)
    optimizer = OPTIMIZERS[name]()
    parameters = dict(net.named_parameters())
    rules = {label: REFERENCES[name]() for label in parameters}
    want = {label: p.astype(float) for label, p in parameters.items()}
    for _ in range(10):
        for label, p in parameters.items():
            p.grad[...] = rng.standard_normal(p.shape)
            want[label] = rules[label].step(want[label], p.grad.astype(float))
        optimizer.step(net)
    for label, p in parameters.items():
        np.testing.assert_allclose(p, want[label], rtol=0, atol=10 * 16 * np.finfo(dtype).eps, err_msg=label)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fault_19_training_is_bitwise_equal_for_any_number_of_threads(isa: str, name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 150)).astype(np.float32), rng.integers(0, 10, 200)
    seen = set()
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net = gm.Network.mlp([150, 256, 10], activation="relu", rng=0)
        net.fit(x, y, loss="cross_entropy", optimizer=OPTIMIZERS[name](), epochs=2, batch_size=64)
        seen.add(b"".join(weights(net).values()))
    gm.set_num_threads(None)
    assert len(seen) == 1


def test_the_seed_decides() -> None:
    x, y = classification()

    def trained(rng: Any) -> dict[str, bytes]:
        net = gm.Network([gm.Dense(2, 16, "relu"), gm.Dropout(0.3), gm.Dense(16, 3)], rng=rng)
        net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=16)
        return weights(net)

    assert trained(5) == trained(5)
    assert trained(5) != trained(6)
    assert trained(np.random.default_rng(5)) == trained(np.random.default_rng(5))
    assert trained(None) != trained(None)


def test_no_global_state_is_touched() -> None:
    x, y = classification()
    before = np.random.get_state()[1].tobytes()
    classifier().fit(x, y, loss="cross_entropy", epochs=1)
    assert np.random.get_state()[1].tobytes() == before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_second_fit_goes_on_where_the_first_stopped(name: str) -> None:
    x, y = classification()
    once, twice = classifier(), classifier()
    optimizer = OPTIMIZERS[name]()
    order = np.array([np.random.default_rng(e).permutation(len(x)) for e in range(6)])
    once.fit(x, y, loss="cross_entropy", optimizer=OPTIMIZERS[name](), epochs=6, batch_size=32, shuffle=order)
    for part in (order[:2], order[2:]):
        twice.fit(
            x, y, loss="cross_entropy", optimizer=optimizer, epochs=len(part), batch_size=32, shuffle=part
        )
    assert weights(once) == weights(twice)


def test_shuffling_goes_on_too() -> None:
    x, y = classification()
    once, twice = classifier(), classifier()
    once.fit(x, y, loss="cross_entropy", optimizer=gm.SGD(0.1), epochs=6, batch_size=32)
    optimizer = gm.SGD(0.1)
    for epochs in (2, 4):
        twice.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=epochs, batch_size=32)
    assert weights(once) == weights(twice)


def test_orders_of_samples() -> None:
    x, y = classification()

    def trained(shuffle: Any, epochs: int = 2) -> dict[str, bytes]:
        net = classifier()
        net.fit(x, y, loss="cross_entropy", epochs=epochs, batch_size=16, shuffle=shuffle)
        return weights(net)

    straight = np.tile(np.arange(len(x)), (2, 1))
    assert trained(False) == trained(straight)
    assert trained(True) == trained(True)
    assert trained(True) != trained(False)
    assert trained(straight[:, ::-1]) != trained(False)
    with pytest.raises(gm.ShapeError, match="shuffle"):
        trained(straight, epochs=3)


def test_each_epoch_meets_every_sample_once() -> None:
    """With one-hot rows and plain SGD sample i moves weight i alone, and how far tells how often it came."""
    count = 50
    net = gm.Network([gm.Dense(count, 1, bias=False, init="zeros")], rng=0)
    y = np.ones((count, 1))
    net.fit(np.eye(count), y, loss="mse", optimizer=gm.SGD(0.25), epochs=3, batch_size=1, shuffle=True)
    # w <- w - 0.25 * 2 (w - 1): the distance to 1 halves at each meeting.
    np.testing.assert_array_equal(net[0].weight, np.full((1, count), 1 - 0.5**3))


def test_epoch_loss_is_weighted_by_samples() -> None:
    """lr = 0: the loss of an epoch of uneven batches is the loss of the whole."""
    x, y = classification()
    net = classifier(dtype="float64")
    history = net.fit(x, y, loss="cross_entropy", optimizer=gm.SGD(0.0), epochs=1, batch_size=32)
    want, _ = reference.cross_entropy(net.predict(x), y)
    assert history["loss"][0] == pytest.approx(want, rel=1e-12)


def test_history_holds_every_epoch() -> None:
    x, y = classification()
    net = classifier()
    history = net.fit(
        x, y, loss="cross_entropy", epochs=4, validation_data=(x, y), metrics=["accuracy"], batch_size=16
    )
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert len(history[key]) == 4, key
    # Validation follows the epoch's last update.
    labels = net.predict(x).argmax(axis=1)
    assert history["val_accuracy"][-1] == pytest.approx((labels == y).mean(), abs=1e-6)


def test_validation_split_is_stratified_and_seeded() -> None:
    """Of 100 samples of each of 3 classes a fifth is held out: 20 of each, the same for the same seed.

    Row i alone has feature i, so column i of the weight stays at its start exactly where row i is held out.
    """
    labels = np.repeat(np.arange(3), 100)

    def held_out(seed: int) -> Array:
        net = gm.Network([gm.Dense(300, 3, init="zeros", bias=False)], rng=seed)
        net.fit(
            np.eye(300), labels, loss="cross_entropy", optimizer=gm.SGD(1.0), epochs=1, validation_split=0.2
        )
        return np.flatnonzero(~net[0].weight.any(axis=0))

    first = held_out(0)
    np.testing.assert_array_equal(np.bincount(labels[first]), [20, 20, 20])
    np.testing.assert_array_equal(held_out(0), first)
    assert not np.array_equal(held_out(1), first)


def test_evaluate_equals_the_reference() -> None:
    x, y = classification()
    net = classifier()
    net.fit(x, y, loss="cross_entropy", metrics=["accuracy"], epochs=3)
    result = net.evaluate(x, y)
    output = net.predict(x).astype(float)
    assert result["loss"] == pytest.approx(reference.cross_entropy(output, y)[0], rel=1e-5)
    assert result["accuracy"] == pytest.approx((output.argmax(axis=1) == y).mean(), abs=1e-9)


def test_frozen_layers_keep_their_weights() -> None:
    x, y = classification()
    net = gm.Network([gm.Dense(2, 8, "relu"), gm.Dense(8, 8, "relu"), gm.Dense(8, 3)], rng=0)
    net[1].trainable = False
    before = weights(net)
    net.fit(x, y, loss="cross_entropy", optimizer=gm.AdamW(0.01, weight_decay=0.1), epochs=2)
    after = weights(net)
    assert {name for name in before if before[name] == after[name]} == {"1.weight", "1.bias"}
    net[1].trainable = True
    net.fit(x, y, loss="cross_entropy", epochs=1)
    assert weights(net)["1.weight"] != before["1.weight"]


def test_softmax_output_and_logits_train_alike() -> None:
    """Cross entropy from a softmax output is fused to the same gradient as from logits."""
    x, y = classification()
    logits = gm.Network([gm.Dense(2, 8, "tanh"), gm.Dense(8, 3)], dtype="float64", rng=0)
    softmax = gm.Network([gm.Dense(2, 8, "tanh"), gm.Dense(8, 3, "softmax")], dtype="float64", rng=0)
    softmax.load_state_dict(logits.state_dict())
    one_hot = np.eye(3)[y]
    histories = [
        net.fit(x, target, loss="cross_entropy", optimizer=gm.SGD(0.5), epochs=20, shuffle=False)["loss"]
        for net, target in ((logits, y), (softmax, one_hot))
    ]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-10)
    np.testing.assert_allclose(reference.softmax(logits.predict(x)), softmax.predict(x), rtol=1e-9)


def test_extreme_logits_do_not_break_training() -> None:
    x, y = classification()
    net = gm.Network([gm.Dense(2, 3, "softmax")], rng=0)
    net[0].weight *= 1e4
    history = net.fit(x, y, loss="cross_entropy", optimizer=gm.SGD(1e-3), epochs=2)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_learns(name: str) -> None:
    x, y = classification(300)
    net = classifier()
    net.fit(x, y, loss="cross_entropy", optimizer=OPTIMIZERS[name](), epochs=80, batch_size=32)
    assert (net.predict(x).argmax(axis=1) == y).mean() > 0.9


@pytest.mark.slow
def test_mnist_reaches_97_5_percent(shared_data: Path) -> None:
    """784-256-128-10, Adam, batches of 64, 5 epochs: the mean of three seeds on the 10,000 test images."""
    (x, y), (x_test, y_test) = gm.datasets.mnist(shared_data / "mnist")
    scores = []
    for seed in range(3):
        net = gm.Network.mlp([784, 256, 128, 10], activation="relu", rng=seed)
        net.fit(x, y, loss="cross_entropy", optimizer=gm.Adam(1e-3), epochs=5, batch_size=64)
        scores.append(net.evaluate(x_test, y_test)["accuracy"])
    assert np.mean(scores) >= 0.975, scores
