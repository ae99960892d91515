"""Checkpoints: a fit that can go on where it was killed."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

from ..layers.base import positive_int
from .base import Callback

if TYPE_CHECKING:
    from .._loop import Loop
    from ..network import Network
    from ..optim import LBFGS, Optimizer


class Checkpoint(Callback):
    """Writes all that a fit is made of to `path`: after every `every` epochs, when training ends, and, where
    `steps` is given, after every so many steps too, within an epoch.

    `net.fit(..., resume=path)` with the same arguments goes on from there, and ends with bitwise the weights
    of a run that was never interrupted, on the same ISA: in the file are weights, optimizer slots, the
    position in the epoch and in the random stream, history, and the state of the other callbacks. It is a
    model file as well: `gm.load(path)`.

    The file is replaced as a whole: whenever the process is killed, the one before or the new one is there.
    TypeError at the start of a fit where the network cannot be saved (`Network.save`)."""

    def __init__(self, path: str | PathLike[str], every: int = 1, steps: int | None = None) -> None:
        self.path = fspath(path)
        self.every = positive_int(every, "Checkpoint: every")
        self.steps = None if steps is None else positive_int(steps, "Checkpoint: steps")

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        from .. import io

        io.contents(network)  # what cannot be saved is better said now

    def due(self, loop: "Loop", epoch_ended: bool, training_ended: bool) -> bool:
        """Whether the loop stands where a checkpoint is to be written."""
        if epoch_ended:
            return training_ended or loop.over or loop.history.epochs % self.every == 0
        return self.steps is not None and loop.steps % self.steps == 0

    def write(self, loop: "Loop", callbacks: Sequence[Callback], ended: bool) -> None:
        """Write where the loop stands."""
        from .. import _checkpoint

        _checkpoint.write(self.path, loop, callbacks, ended)
