"""Training on all samples at once with an optimizer that asks for values and gradients itself."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._loop import Data, Loop, Settings
from .arrays import Array
from .callbacks import Callback, Checkpoint
from .optim import LBFGS, SGD
from .optim.lbfgs import Minimizer

if TYPE_CHECKING:
    from .network import Network


class FullBatchLoop(Loop):
    """The training loop of L-BFGS; an epoch is an iteration. Values and gradients are those of the compiled
    loop, of a step that moves nothing."""

    def __init__(
        self,
        network: "Network",
        settings: Settings,
        data: Data,
        validated: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        lbfgs, rows = settings.optimizer, len(data.x)
        assert isinstance(lbfgs, LBFGS)
        if settings.batch_size * settings.accumulate < rows:
            raise ValueError(
                f"fit: batch_size is {settings.batch_size}; LBFGS takes all {rows} samples: "
                "batch_size=None, or accumulate"
            )
        if settings.order is not None:
            raise ValueError("fit: LBFGS takes all samples at once; shuffle must be True or False")
        if settings.augment is not None:
            raise ValueError("fit: LBFGS must see the same samples each time; augment goes with the others")
        if any(isinstance(callback, Checkpoint) for callback in callbacks):
            raise ValueError("fit: LBFGS cannot go on from a checkpoint: what it remembers is SciPy's")
        super().__init__(network, settings._replace(optimizer=SGD(0.0), shuffle=False), data, validated)
        self._decay = lbfgs.weight_decay
        self._step = network._step  # one position in the random stream for all values: one function
        self._segments = network.trainable_segments()
        self._iterate = self._flat("values")
        self._states = [segment for _, segment, _ in network.segments() if segment.is_state]
        self._state = self._copies()  # at the iterate: an evaluation moves it once, from there
        self._found: dict[str, float] = {}
        self._at: Array | None = None  # where the values and gradients in the network were made
        self._minimizer = Minimizer(lbfgs, self._iterate, settings.epochs)

    def run(self, epochs: int, steps: int | None = None) -> Iterator[dict[str, float]]:
        """Up to `epochs` iterations, then what each came to; fewer where the minimiser has converged."""
        done = self.history.epochs
        try:
            for _ in range(epochs):
                logs = self._iteration(done)
                if logs is None:
                    return
                done += 1
                yield logs
        finally:
            self._place(self._iterate)
            self._place_state()
            self.network._step = self._step + done

    def close(self) -> None:
        self._minimizer.close()

    def _iteration(self, done: int) -> dict[str, float] | None:
        """The losses at the next iterate, which the network then holds; None where there is none."""
        while asked := self._minimizer.ask():
            if self._at is None or not np.array_equal(asked.at, self._at):
                self._evaluate(asked.at, done)
            if not asked.value:
                self._iterate, self._state = asked.at, self._copies()
                return self._found
            loss = self._found["loss"] + self._decay / 2 * float(asked.at @ asked.at)
            self._minimizer.answer(loss, self._flat("grads") + self._decay * asked.at)
        return None

    def _evaluate(self, at: Array, done: int) -> None:
        self._at = None
        self._place(at)
        self._place_state()
        self.network._step = self._step
        (self._found,) = super().run(1)
        self._at = at

    def _flat(self, what: str) -> Array:
        """The trained parameters, or their gradients, one after the other in float64."""
        parts = [
            getattr(segment.placed.store, what)[slice(*segment.span)].astype(np.float64)
            for segment in self._segments
        ]
        return np.concatenate(parts)

    def _copies(self) -> list[Array]:
        return [segment.values.copy() for segment in self._states]

    def _place_state(self) -> None:
        for segment, values in zip(self._states, self._state, strict=True):
            segment.values[...] = values

    def _place(self, values: Array) -> None:
        at = 0
        with np.errstate(over="ignore"):  # what a float32 network cannot hold makes its loss infinite
            for segment in self._segments:
                segment.placed.store.values[slice(*segment.span)] = values[at : at + segment.size]
                at += segment.size
