"""Callbacks: the order of their methods, what each does to a fit, what checkpoints keep, bad input."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from helpers import classification, classifier, fitted, through_a_file, weights

import gemmule as gm
from gemmule.callbacks import Callback, CSVLogger, EarlyStopping, LambdaCallback, ReduceOnPlateau

# -- order ---------------------------------------------------------------------------------------------------


class Recorder(Callback):
    def __init__(self, name: str, calls: list[tuple[Any, ...]]) -> None:
        self.name, self.calls = name, calls

    def on_train_begin(self, network: gm.Network, optimizer: Any) -> None:
        assert network.history is not None and network.history.epochs == 0
        self.calls.append((self.name, "train begins", list(network.history), optimizer))

    def on_epoch_begin(self, network: gm.Network, epoch: int) -> None:
        self.calls.append((self.name, "begin", epoch))

    def on_epoch_end(self, network: gm.Network, epoch: int, logs: Mapping[str, float]) -> None:
        assert dict(logs) == {key: values[-1] for key, values in network.history.items()}
        self.calls.append((self.name, "end", epoch))

    def on_train_end(self, network: gm.Network, history: gm.History) -> None:
        assert history is network.history and history.seconds > 0
        self.calls.append((self.name, "train ends", history.epochs))


def test_the_order_of_calls() -> None:
    x, y = classification()
    calls: list[tuple[Any, ...]] = []
    optimizer = gm.SGD(0.1)
    fitted(
        [Recorder("a", calls), Recorder("b", calls)], 2, optimizer=optimizer, validation_data=(x[:9], y[:9])
    )
    keys = ["loss", "accuracy", "val_loss", "val_accuracy"]
    want = [("train begins", keys, optimizer), ("begin", 1), ("end", 1), ("begin", 2), ("end", 2)]
    assert calls == [(name, *call) for call in [*want, ("train ends", 2)] for name in "ab"]


def test_a_callback_without_methods_does_nothing() -> None:
    assert weights(fitted([Callback()])) == weights(fitted([]))
    assert Callback().state() == {}
    Callback().restore({})
    with pytest.raises(ValueError, match="Callback: the state has best; its own has nothing"):
        Callback().restore({"best": 1})


def test_after_an_exception_training_does_not_end() -> None:
    calls: list[tuple[Any, ...]] = []

    def interrupt(network: gm.Network, epoch: int, logs: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    net = classifier()
    with pytest.raises(KeyboardInterrupt):
        fitted([Recorder("a", calls), LambdaCallback(on_epoch_end=interrupt)], net=net)
    assert calls[-1] == ("a", "end", 2)
    assert net.history.epochs == 2
    fitted([], net=net)  # the parameters are free again


def test_nothing_is_trained_where_a_callback_cannot_begin() -> None:
    def fail(network: gm.Network, optimizer: Any) -> None:
        raise ValueError("no")

    net = classifier()
    before = weights(net)
    with pytest.raises(ValueError, match="no"):
        fitted([LambdaCallback(on_train_begin=fail)], net=net)
    assert weights(net) == before


def test_functions_as_callbacks() -> None:
    calls: list[Any] = []
    callback = LambdaCallback(
        on_train_begin=lambda network, optimizer: calls.append("train begins"),
        on_epoch_begin=lambda network, epoch: calls.append(epoch),
        on_epoch_end=lambda network, epoch, logs: epoch == 2,
        on_train_end=lambda network, history: calls.append("train ends"),
    )
    net = fitted([callback], 9)
    assert calls == ["train begins", 1, 2, "train ends"] and net.history.epochs == 2
    assert fitted([LambdaCallback(on_epoch_end=lambda n, e, logs: np.bool_(True))], 9).history.epochs == 1
    # Only True ends the training: what a file's `write` returns does not.
    assert fitted([LambdaCallback(on_epoch_end=lambda n, e, logs: 12)], 3).history.epochs == 3
    with pytest.raises(TypeError, match="LambdaCallback: on_epoch_end must be a function, not 3"):
        LambdaCallback(on_epoch_end=3)


# -- EarlyStopping -------------------------------------------------------------------------------------------


def epochs_of(callback: Callback, key: str, values: list[float], net: gm.Network, optimizer: Any) -> int:
    """Give a callback these figures by hand; returns the number of epochs until it says to stop."""
    for epoch, value in enumerate(values, start=1):
        callback.on_epoch_begin(net, epoch)
        if callback.on_epoch_end(net, epoch, {"loss": 1.0, key: value}):
            return epoch
    return len(values)


def stopped_by_the_book(
    values: list[float], rising: bool, patience: int, delta: float, start: int
) -> tuple[int, int | None]:
    """(epochs done, best epoch)."""
    best, best_epoch, waited = -math.inf, None, 0
    for epoch, value in enumerate(values, start=1):
        value = value if rising else -value
        if epoch < start:
            continue
        if value > best + (delta if best_epoch else 0):
            best, best_epoch, waited = value, epoch, 0
        else:
            waited += 1
            if waited == patience:
                return epoch, best_epoch
    return len(values), best_epoch


@pytest.mark.parametrize("key", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("seed", range(10))
def test_when_it_stops(key: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.random(30), 2).tolist()
    values[seed % 4] = math.nan
    for patience, delta, start in [(1, 0.0, 1), (3, 0.0, 1), (4, 0.1, 1), (2, 0.05, 6)]:
        stopping = EarlyStopping(key, patience, delta, start_from=start, restore_best=False)
        net = classifier()
        stopping.on_train_begin(net, gm.SGD())
        epochs = epochs_of(stopping, key, values, net, None)
        want = stopped_by_the_book(values, key == "val_accuracy", patience, delta, start)
        assert (epochs, stopping.best_epoch) == want
        assert stopping.stopped_epoch == (epochs if epochs < 30 else stopping.stopped_epoch)
        assert stopping.best == (None if want[1] is None else values[want[1] - 1])


class Keeper(Callback):
    """The parameters and figures of every epoch."""

    def __init__(self) -> None:
        self.kept: list[dict[str, bytes]] = []

    def on_epoch_end(self, network: gm.Network, epoch: int, logs: Mapping[str, float]) -> None:
        self.kept.append(weights(network))


@pytest.mark.parametrize("restore_best", [True, False])
def test_the_parameters_of_the_best_epoch(restore_best: bool) -> None:
    x, y = classification()
    stopping, keeper = EarlyStopping(patience=3, restore_best=restore_best), Keeper()
    # A rate at which the loss on other points soon gets worse again.
    net = fitted([keeper, stopping], 200, optimizer=gm.SGD(3.0), validation_data=(x[::-1], (y + 1) % 3))
    losses = net.history["val_loss"]
    assert net.history.epochs == stopping.stopped_epoch == stopping.best_epoch + 3 < 200
    assert stopping.best == min(losses) == losses[stopping.best_epoch - 1]
    assert weights(net) == keeper.kept[stopping.best_epoch - 1 if restore_best else -1]
    assert not stopping.best_parameters


def test_the_best_epoch_counts_where_training_ends_by_itself() -> None:
    x, y = classification()
    stopping, keeper = EarlyStopping("val_accuracy", patience=50), Keeper()
    net = fitted([keeper, stopping], 8, optimizer=gm.SGD(2.0), validation_data=(x, (y + 1) % 3))
    accuracy = net.history["val_accuracy"]
    assert stopping.stopped_epoch is None and stopping.best == max(accuracy)
    assert weights(net) == keeper.kept[accuracy.index(max(accuracy))]


def test_after_an_exception_the_best_parameters_are_still_there() -> None:
    def interrupt(network: gm.Network, epoch: int, logs: Mapping[str, float]) -> None:
        if epoch == 4:
            raise KeyboardInterrupt

    net, stopping, keeper = classifier(), EarlyStopping("accuracy", mode="min"), Keeper()
    with pytest.raises(KeyboardInterrupt):
        fitted([keeper, stopping, LambdaCallback(on_epoch_end=interrupt)], 9, net=net)
    assert weights(net) == keeper.kept[-1]
    net.load_state_dict(stopping.best_parameters)
    assert weights(net) == keeper.kept[stopping.best_epoch - 1]


def test_what_it_watches() -> None:
    x, y = classification()
    for options, key in [({}, "loss"), ({"validation_data": (x, y)}, "val_loss")]:
        stopping = EarlyStopping()
        net = fitted([stopping], 3, **options)
        assert stopping.best == min(net.history[key])
    # One object serves several fits, and forgets between them.
    assert fitted([stopping], 1).history["loss"] == [stopping.best]


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceOnPlateau])
def test_what_is_not_measured_is_said_before_training(kind: Any) -> None:
    net = classifier()
    before = weights(net)
    with pytest.raises(
        ValueError, match=f"{kind.__name__}: 'val_acc' is not measured; known: loss, accuracy$"
    ):
        fitted([kind("val_acc")], net=net)
    with pytest.raises(ValueError, match="is more of 'face' better"):
        kind("face").on_epoch_end(net, 1, {"loss": 1, "face": 2})
    assert weights(net) == before


@pytest.mark.parametrize(
    ("key", "rising"),
    [
        *[(name, True) for name in "accuracy val_top_5 precision recall_macro val_f1 val_auc r2".split()],
        *[(name, False) for name in "loss val_loss mse val_mae".split()],
    ],
)
def test_auto_knows_what_should_rise(key: str, rising: bool) -> None:
    stopping, net = EarlyStopping(key, patience=1, restore_best=False), classifier()
    assert epochs_of(stopping, key, [1.0, 2.0, 3.0], net, None) == (3 if rising else 2)


def test_early_stopping_goes_on_from_a_checkpoint() -> None:
    values = np.round(np.random.default_rng(3).random(25), 2).tolist()
    for cut in range(1, 7):
        nets = [classifier(), classifier()]
        whole, first, second = (EarlyStopping("val_loss", patience=6) for _ in range(3))
        for callback in (whole, first, second):
            callback.on_train_begin(nets[0], gm.SGD())
        epochs = 0
        for epoch, value in enumerate(values, start=1):
            for net in nets:
                net[0].weight[0, 0] = epoch
            if epoch == cut + 1:
                second.restore(through_a_file(first.state()))
            part = first if epoch <= cut else second
            ends = [
                callback.on_epoch_end(net, epoch, {"val_loss": value})
                for callback, net in zip((whole, part), nets, strict=True)
            ]
            assert ends[0] == ends[1]
            epochs = epoch
            if ends[0]:
                break
        assert epochs > cut
        for callback, net in zip((whole, second), nets, strict=True):
            callback.on_train_end(net, gm.History(("loss",)))
        assert weights(nets[0]) == weights(nets[1])
        assert nets[1][0].weight[0, 0] == whole.best_epoch == second.best_epoch
    with pytest.raises(
        ValueError, match="EarlyStopping: the state has lr; its own has best, best_epoch, waited"
    ):
        second.restore({"lr": 1.0})


# -- ReduceOnPlateau -----------------------------------------------------------------------------------------


SETTINGS: list[dict[str, Any]] = [
    {"factor": 0.5, "patience": 2},
    {"factor": 0.1, "patience": 0, "cooldown": 2, "min_lr": 1e-3},
    {"factor": 0.3, "patience": 3, "threshold": 0.2, "cooldown": 1},
]


def rates_by_the_book(
    values: list[float],
    rising: bool,
    factor: float,
    patience: int,
    threshold: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> list[float]:
    lr, best, bad, cooling, rates = 0.1, None, 0, 0, []
    for value in values:
        edge = None if best is None else best * (1 + threshold if rising else 1 - threshold)
        if edge is None or (value > edge if rising else value < edge):
            best, bad = value, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            reduced = max(lr * factor, min_lr)
            lr = reduced if lr - reduced > 1e-8 else lr
            bad, cooling = 0, cooldown
        rates.append(lr)
    return rates


def rates_of(callback: ReduceOnPlateau, values: list[float], key: str) -> list[float]:
    optimizer, rates, net = gm.Adam(0.1), [], classifier()
    callback.on_train_begin(net, optimizer)
    for epoch, value in enumerate(values, start=1):
        assert callback.on_epoch_end(net, epoch, {"loss": 1.0, key: value}) is None
        rates.append(optimizer.lr)
    return rates


def figures(seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return (rng.random(40) + np.linspace(1, 0, 40)).tolist()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("key", ["val_loss", "r2"])
def test_when_the_rate_falls(key: str, settings: dict[str, Any]) -> None:
    for seed in range(5):
        values = figures(seed)
        rates = rates_of(ReduceOnPlateau(key, **settings), values, key)
        assert rates == rates_by_the_book(values, key == "r2", **settings)
        assert len(set(rates)) > 2


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("key", ["val_loss", "r2"])
def test_pytorchs_plateaus(key: str, settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(5):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        mode = "max" if key == "r2" else "min"
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, **settings)
        want = []
        for value in figures(seed):
            scheduler.step(value)
            want.append(optimizer.param_groups[0]["lr"])
        assert rates_of(ReduceOnPlateau(key, **settings), figures(seed), key) == want


def test_the_rate_falls_in_a_fit_and_is_the_one_trained_with() -> None:
    """With a threshold that no loss passes: epochs 1 to 3 at 0.1, 4 and 5 at 0.05, 6 at 0.025."""
    optimizer = gm.SGD(0.1)
    net = fitted(
        [ReduceOnPlateau(factor=0.5, patience=1, threshold=1.0)], 6, optimizer=optimizer, shuffle=False
    )
    assert optimizer.lr == 0.025
    by_hand, plain = classifier(), gm.SGD(0.1)
    for lr, epochs in [(0.1, 3), (0.05, 2), (0.025, 1)]:
        plain.lr = lr
        fitted([], epochs, net=by_hand, optimizer=plain, shuffle=False)
    assert weights(net) == weights(by_hand)


def test_a_schedule_is_not_reduced() -> None:
    optimizer = gm.SGD(gm.schedules.Cosine(0.1))
    with pytest.raises(
        TypeError, match=r"changes a rate that is a number; optimizer\.lr is Cosine\(lr=0\.1,"
    ):
        fitted([ReduceOnPlateau()], optimizer=optimizer)


def test_reduce_on_plateau_goes_on_from_a_checkpoint() -> None:
    settings = {"factor": 0.5, "patience": 2, "cooldown": 2}
    whole = rates_of(ReduceOnPlateau("loss", **settings), figures(1), "loss")
    for cut in range(1, 30, 3):
        net, optimizers = classifier(), [gm.SGD(0.1), gm.SGD(0.1)]
        parts = [ReduceOnPlateau("loss", **settings) for _ in range(2)]
        for part, optimizer in zip(parts, optimizers, strict=True):
            part.on_train_begin(net, optimizer)
        rates = []
        for epoch, value in enumerate(figures(1), start=1):
            if epoch == cut + 1:
                parts[1].restore(through_a_file(parts[0].state()))
            parts[epoch > cut].on_epoch_end(net, epoch, {"loss": value})
            rates.append(optimizers[epoch > cut].lr)
        assert rates == whole
    with pytest.raises(ValueError, match="ReduceOnPlateau: the state has size"):
        parts[1].restore({"size": 3})
    with pytest.raises(RuntimeError, match="call on_train_begin"):
        ReduceOnPlateau().state()


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: EarlyStopping(3), TypeError, "EarlyStopping: monitor must be a name such as 'val_loss', not 3"),
    (lambda: EarlyStopping(patience=0), ValueError, "EarlyStopping: patience is 0; it must be at least 1"),
    (lambda: EarlyStopping(min_delta=-1), ValueError, "EarlyStopping: min_delta is -1"),
    (lambda: EarlyStopping(mode="best"), ValueError, "unknown mode 'best'; known: auto, min, max"),
    (lambda: EarlyStopping(start_from=0), ValueError, "EarlyStopping: start_from is 0"),
    (lambda: ReduceOnPlateau(factor=1.0), ValueError, "factor is 1.0; it must be above 0 and below 1"),
    (lambda: ReduceOnPlateau(patience=-1), ValueError, "ReduceOnPlateau: patience is -1"),
    (lambda: ReduceOnPlateau(cooldown=1.5), TypeError, "ReduceOnPlateau: cooldown must be an integer"),
    (lambda: ReduceOnPlateau(min_lr=-1), ValueError, "ReduceOnPlateau: min_lr is -1"),
    (lambda: ReduceOnPlateau(threshold=math.nan), ValueError, "ReduceOnPlateau: threshold is nan"),
    (lambda: CSVLogger(3), TypeError, "3|int"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
