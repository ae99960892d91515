"""Callbacks that watch one figure: stop early, lower the rate on a plateau."""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array, not_negative, real_number, unknown_name
from ..layers.base import positive_int
from ..optim import LBFGS
from ..schedules import Schedule
from .base import Callback, Logs, expect

if TYPE_CHECKING:
    from ..history import History
    from ..network import Network
    from ..optim import Optimizer

_RISING = ("accuracy", "top", "precision", "recall", "f1", "auc", "r2")
_FALLING = ("loss", "mse", "mae")
_STORED = "parameter:"  # before the names of parameters in a state
_LEAST_CHANGE = 1e-8  # of a rate that is worth making: PyTorch's eps


class Monitor(Callback):
    """Watches one key of the logs and keeps its best value.

    monitor: None is "val_loss", or "loss" where nothing is validated. mode: "min", "max", or "auto", which
    knows the losses and metrics of gemmule."""

    best: float | None
    best_epoch: int | None

    def __init__(self, monitor: str | None, mode: str) -> None:
        if not (monitor is None or isinstance(monitor, str)):
            raise TypeError(f"{self._name}: monitor must be a name such as 'val_loss', not {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise unknown_name("mode", mode, ("auto", "min", "max"))
        self.monitor = monitor
        self.mode = mode
        self._forget()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _forget(self) -> None:
        self.best = None
        self.best_epoch = None

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        self._forget()
        history = network.history
        if history is not None and not history.epochs:  # else it may be that of an earlier fit
            self._watched(history)

    def _watched(self, known: Collection[str]) -> tuple[str, int]:
        """(what is watched, 1 where more is better or -1); ValueError where it is not among the known
        names."""
        key = self.monitor or ("val_loss" if "val_loss" in known else "loss")
        if key not in known:
            raise ValueError(f"{self._name}: {key!r} is not measured; known: {', '.join(known)}")
        if self.mode != "auto":
            return key, 1 if self.mode == "max" else -1
        stem = key.removeprefix("val_").split("_")[0]
        if stem not in _RISING + _FALLING:
            raise ValueError(f"{self._name}: is more of {key!r} better? Give mode='max' or mode='min'")
        return key, 1 if stem in _RISING else -1


class EarlyStopping(Monitor):
    """Ends the training after `patience` epochs in a row in which the figure was not better than its best.

    monitor, mode: what is watched, by default "val_loss", or "loss" where nothing is validated; "auto" knows
        which of gemmule's figures should rise.
    min_delta: better means better by more than this. NaN is never better.
    restore_best: at the end of training, early or not, the network gets the parameters of the best epoch.
        After an exception it keeps those of the last step; the best are in `best_parameters`.
    start_from: the first epoch that counts.

    Afterwards `best` and `best_epoch` tell the best figure, `stopped_epoch` when training was ended, None
    where it was not. ValueError when training begins for a figure that is not measured. Prechelt 1998."""

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
        start_from: int = 1,
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = positive_int(patience, "EarlyStopping: patience")
        self.min_delta = not_negative(min_delta, "EarlyStopping: min_delta")
        self.restore_best = bool(restore_best)
        self.start_from = positive_int(start_from, "EarlyStopping: start_from")

    def _forget(self) -> None:
        super()._forget()
        self.stopped_epoch: int | None = None
        self.best_parameters: dict[str, Array] = {}
        self._waited = 0

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        key, sign = self._watched(logs)
        if epoch < self.start_from:
            return None
        value = float(logs[key])
        if self._better(value, sign):
            self.best, self.best_epoch, self._waited = value, epoch, 0
            if self.restore_best:
                self.best_parameters = network.state_dict()
            return None
        self._waited += 1
        if self._waited < self.patience:
            return None
        self.stopped_epoch = epoch
        return True

    def _better(self, value: float, sign: int) -> bool:
        if self.best is None:
            return sign * value > -math.inf
        return sign * value > sign * self.best + self.min_delta

    def on_train_end(self, network: "Network", history: "History") -> None:
        if self.best_parameters:
            network.load_state_dict(self.best_parameters)
            self.best_parameters = {}

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            **{f"{_STORED}{name}": array for name, array in self.best_parameters.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        rest = {name: value for name, value in state.items() if not name.startswith(_STORED)}
        expect(self, rest, ("best", "best_epoch", "waited"))
        self.best, self.best_epoch, self._waited = rest["best"], rest["best_epoch"], int(rest["waited"])
        self.best_parameters = {
            name.removeprefix(_STORED): np.array(value)
            for name, value in state.items()
            if name.startswith(_STORED)
        }


class ReduceOnPlateau(Monitor):
    """Lowers `optimizer.lr` to max(factor lr, min_lr) when the figure has not become better for more than
    `patience` epochs.

    Better means below best (1 - threshold), or above best (1 + threshold) where more is better. For
    `cooldown` epochs after a change none is counted. As PyTorch's ReduceLROnPlateau.

    monitor, mode: as of `EarlyStopping`. The optimizer keeps its last rate when training ends. When it
        begins,
    TypeError where lr is a schedule, ValueError for a figure that is not measured."""

    def __init__(
        self,
        monitor: str | None = None,
        factor: float = 0.1,
        patience: int = 10,
        min_lr: float = 0.0,
        threshold: float = 1e-4,
        cooldown: int = 0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.factor = real_number(factor, "ReduceOnPlateau: factor")
        if not 0 < self.factor < 1:
            raise ValueError(f"ReduceOnPlateau: factor is {factor}; it must be above 0 and below 1")
        self.patience = _count(patience, "ReduceOnPlateau: patience")
        self.min_lr = not_negative(min_lr, "ReduceOnPlateau: min_lr")
        self.threshold = not_negative(threshold, "ReduceOnPlateau: threshold")
        self.cooldown = _count(cooldown, "ReduceOnPlateau: cooldown")
        self._optimizer: Optimizer | None = None

    def _forget(self) -> None:
        super()._forget()
        self._bad = 0  # epochs without a better figure
        self._cooling = 0  # epochs of the cooldown to come

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        super().on_train_begin(network, optimizer)
        if isinstance(optimizer, LBFGS):
            raise TypeError("ReduceOnPlateau changes a learning rate; LBFGS has none")
        if isinstance(optimizer.lr, Schedule):
            raise TypeError(
                f"ReduceOnPlateau changes a rate that is a number; optimizer.lr is {optimizer.lr!r}"
            )
        self._optimizer = optimizer

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        key, sign = self._watched(logs)
        value = float(logs[key])
        if self._better(value, sign):
            self.best, self.best_epoch, self._bad = value, epoch, 0
        else:
            self._bad += 1
        if self._cooling:
            self._cooling -= 1
            self._bad = 0
        if self._bad > self.patience:
            self._reduce()
            self._bad, self._cooling = 0, self.cooldown
        return None

    def _better(self, value: float, sign: int) -> bool:
        if self.best is None:
            return sign * value > -math.inf
        return sign * value > sign * self.best * (1 + sign * self.threshold)

    def _reduce(self) -> None:
        optimizer = self._bound()
        lr = real_number(optimizer.lr, "ReduceOnPlateau: optimizer.lr")
        reduced = max(lr * self.factor, self.min_lr)
        if lr - reduced > _LEAST_CHANGE:
            optimizer.lr = reduced

    def _bound(self) -> "Optimizer":
        if self._optimizer is None:
            raise RuntimeError("ReduceOnPlateau: call on_train_begin(network, optimizer) first")
        return self._optimizer

    def on_train_end(self, network: "Network", history: "History") -> None:
        self._optimizer = None

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "bad": self._bad,
            "cooling": self._cooling,
            "lr": self._bound().lr,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        expect(self, state, ("best", "best_epoch", "bad", "cooling", "lr"))
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._bad, self._cooling = int(state["bad"]), int(state["cooling"])
        self._bound().lr = float(state["lr"])


def _count(value: Any, what: str) -> int:
    """An integer of at least 0."""
    return 0 if type(value) is int and value == 0 else positive_int(value, what)
