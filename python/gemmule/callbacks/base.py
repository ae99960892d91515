"""What all callbacks share, and callbacks from plain functions."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..history import History
    from ..network import Network
    from ..optim import LBFGS, Optimizer

Logs = Mapping[str, float]


class Callback:
    """Code that runs between epochs. A subclass defines the methods it needs; here they do nothing.

    They are called in this order, in each the callbacks as they stand in the list:

        on_train_begin     when all arguments of `fit` are checked; `network.history` has its keys, no values
        restore            where the fit goes on from a checkpoint
        on_epoch_begin     before each epoch, counting from 1
        on_epoch_end       after it; True ends the training
        state              after that, where a checkpoint is written
        on_train_end       when training is over; not after an exception

    `network.predict` and `network.evaluate` may be called in them, `network.fit` may not. A network with
    callbacks comes back to Python after every epoch, else only at the end. An exception ends the training and
    leaves `fit`."""

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        """Before the first epoch. One object may serve several fits: what it kept of another goes here."""

    def on_epoch_begin(self, network: "Network", epoch: int) -> None:
        """Before an epoch."""

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        """After an epoch, with its losses and metrics by name. Returning True ends the training."""
        return None

    def on_train_end(self, network: "Network", history: "History") -> None:
        """After the last epoch, whichever way training came to its end."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for this callback to go on as if never interrupted: values as JSON
        holds them, or arrays."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave. ValueError where that was another kind of callback."""
        expect(self, state, ())


class LambdaCallback(Callback):
    """A callback from functions, each with the arguments of the method of its name.

    LambdaCallback(on_epoch_end=lambda network, epoch, logs: logs["loss"] < 0.1)"""

    def __init__(
        self,
        *,
        on_train_begin: "Callable[[Network, Optimizer | LBFGS], object] | None" = None,
        on_epoch_begin: "Callable[[Network, int], object] | None" = None,
        on_epoch_end: "Callable[[Network, int, Logs], object] | None" = None,
        on_train_end: "Callable[[Network, History], object] | None" = None,
    ) -> None:
        self._functions: dict[str, Callable[..., object]] = {}
        given = {
            "on_train_begin": on_train_begin,
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_end": on_train_end,
        }
        for name, function in given.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be a function, not {function!r}")
            self._functions[name] = function

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        self._call("on_train_begin", network, optimizer)

    def on_epoch_begin(self, network: "Network", epoch: int) -> None:
        self._call("on_epoch_begin", network, epoch)

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        result = self._call("on_epoch_end", network, epoch, logs)
        return isinstance(result, bool | np.bool_) and bool(result)  # a file's write returns a number

    def on_train_end(self, network: "Network", history: "History") -> None:
        self._call("on_train_end", network, history)

    def _call(self, name: str, *arguments: object) -> object:
        function = self._functions.get(name)
        return None if function is None else function(*arguments)


def expect(callback: Callback, state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """ValueError unless the state has these names."""
    if set(state) != set(names):
        raise ValueError(
            f"{type(callback).__name__}: the state has {', '.join(state) or 'nothing'}; "
            f"its own has {', '.join(names) or 'nothing'}"
        )
