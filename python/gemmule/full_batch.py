"""Training on all samples at once with an optimizer that asks for values and gradients itself."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Array
from .losses import Loss
from .optim import LBFGS, SGD
from .optim.lbfgs import Minimizer
from .training import Data, Loop

if TYPE_CHECKING:
    from .network import Network


class FullBatchLoop(Loop):
    """The training loop of L-BFGS; an epoch is an iteration. Values and gradients are those of the compiled
    loop, of a step that moves nothing."""

    def __init__(
        self,
        network: "Network",
        loss: Loss,
        metrics: tuple[str, ...],
        settings: LBFGS,
        data: Data,
        iterations: int,
        precision: str | None,
    ) -> None:
        super().__init__(network, loss, metrics, SGD(0.0), data, len(data.x), None, False, precision)
        self._decay = settings.weight_decay
        self._step = network._step  # one position in the random stream for all values: one function
        self._segments = network.trainable_segments()
        self._iterate = self._flat("values")
        self._logs: dict[str, float] = {}
        self._at: Array | None = None  # where the values and gradients in the network were made
        self._minimizer = Minimizer(settings, self._iterate, iterations)

    def epochs(self, done: int, count: int) -> Iterator[dict[str, float]]:
        """Up to `count` iterations, then what each came to; fewer where the minimiser has converged."""
        try:
            for _ in range(count):
                logs = self._iteration(done)
                if logs is None:
                    return
                done += 1
                yield logs
        finally:
            self._place(self._iterate)
            self.network._step = self._step + done

    def close(self) -> None:
        self._minimizer.close()

    def _iteration(self, done: int) -> dict[str, float] | None:
        """The losses at the next iterate, which the network then holds; None where there is none."""
        while asked := self._minimizer.ask():
            if self._at is None or not np.array_equal(asked.at, self._at):
                self._evaluate(asked.at, done)
            if not asked.value:
                self._iterate = asked.at
                return self._logs
            loss = self._logs["loss"] + self._decay / 2 * float(asked.at @ asked.at)
            self._minimizer.answer(loss, self._flat("grads") + self._decay * asked.at)
        return None

    def _evaluate(self, at: Array, done: int) -> None:
        self._at = None
        self._place(at)
        self.network._step = self._step
        (self._logs,) = super().epochs(done, 1)
        self._at = at

    def _flat(self, what: str) -> Array:
        """The trained parameters, or their gradients, one after the other in float64."""
        parts = [
            getattr(segment.placed.store, what)[slice(*segment.span)].astype(np.float64)
            for segment in self._segments
        ]
        return np.concatenate(parts)

    def _place(self, values: Array) -> None:
        at = 0
        with np.errstate(over="ignore"):  # what a float32 network cannot hold makes its loss infinite
            for segment in self._segments:
                segment.placed.store.values[slice(*segment.span)] = values[at : at + segment.size]
                at += segment.size
