"""What fit takes along on its way: rates for each update, metrics that need whole epochs."""

from typing import Any

import numpy as np
import pytest

import gemmule as gm

X, Y = gm.datasets.digits()
X, Y = X[:200], Y[:200]
BATCH = 64  # 4 updates an epoch


def make_net(dtype: str = "float64") -> gm.Network:
    return gm.Network([gm.Dense(64, 12, "tanh"), gm.Dense(12, 10)], rng=3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "schedule",
    [
        gm.schedules.Cosine(0.1),
        gm.schedules.Step(0.1, every=1, gamma=0.5),
        gm.schedules.OneCycle(0.2),
        gm.schedules.Warmup(0.1, duration=5, by="step"),
        gm.schedules.Constant(0.1),
    ],
)
def test_a_schedule_sets_the_rate_of_every_update(dtype: str, schedule: gm.schedules.Schedule) -> None:
    """The same as a fit of one batch for each update, with the rates put in by hand."""
    order = np.stack([np.random.default_rng(e).permutation(200) for e in range(3)])
    net, by_hand = make_net(dtype), make_net(dtype)
    net.fit(
        X, Y, loss="cross_entropy", optimizer=gm.SGD(schedule, momentum=0.9), epochs=3, batch_size=BATCH,
        shuffle=order,
    )  # fmt: skip
    rates = iter(schedule.rates(0, 12, 4, 12))
    optimizer = gm.SGD(0.1, momentum=0.9)
    for epoch in order:
        for rows in np.split(epoch, range(BATCH, 200, BATCH)):
            optimizer.lr = float(next(rates))
            by_hand.fit(
                X[rows], Y[rows], loss="cross_entropy", optimizer=optimizer, batch_size=BATCH, shuffle=False
            )
    eps = np.finfo(dtype).eps
    for (name, p), (_, q) in zip(net.named_parameters(), by_hand.named_parameters(), strict=True):
        # The same operations but for the batches' row counts, which may change the order of a sum.
        np.testing.assert_allclose(p, q, rtol=0, atol=200 * eps * np.abs(q).max(), err_msg=name)


def test_a_schedule_that_fails_changes_nothing() -> None:
    net = make_net()
    before = net.state_dict()
    with pytest.raises(ValueError, match="rate of update 2"):
        net.fit(
            X, Y, loss="cross_entropy", optimizer=gm.SGD(gm.schedules.Lambda(lambda t: 1.5 - t, by="step"))
        )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
def test_training_metrics_are_of_the_outputs_as_met(batch_size: int | None) -> None:
    """With a rate of zero they are those of an evaluation, whatever the order was."""
    net = make_net()
    names: list[Any] = ["accuracy", "top_3", "f1", "auc"]

    def spread(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.abs(y_pred).sum() + y_true.sum())

    history = net.fit(
        X, Y, loss="cross_entropy", optimizer=gm.SGD(0.0), epochs=2, batch_size=batch_size,
        metrics=[*names, spread],
    )  # fmt: skip
    found = net.evaluate(X, Y, metrics=[*names, spread])
    assert list(history) == ["loss", *names, "spread"]
    for name in history:
        np.testing.assert_allclose(history[name], [found[name]] * 2, rtol=1e-12)


def test_a_metric_that_raises_is_named_and_steps_are_kept() -> None:
    def broken(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise ZeroDivisionError("by chance")

    net = make_net()
    before = net.state_dict()["0.weight"]
    with pytest.raises(ZeroDivisionError) as caught:
        net.fit(X, Y, loss="cross_entropy", metrics=[broken])
    assert "'broken'" in "".join(caught.value.__notes__)
    assert not np.array_equal(net.state_dict()["0.weight"], before)


def test_a_metric_without_meaning_for_the_task_is_refused() -> None:
    net = make_net()
    with pytest.raises(ValueError, match="r2"):
        net.fit(X, Y, loss="cross_entropy", metrics=["r2"])
    with pytest.raises(ValueError, match="unknown metric 'acuracy'"):
        net.fit(X, Y, loss="cross_entropy", metrics=["acuracy"])
    assert net._step == 0
