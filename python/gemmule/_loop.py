"""The epoch loop as Python sees it: calls of the compiled one, and what happens between them."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _bytes, _core, inference
from ._weights import Weights, given
from .arrays import Array, Shape
from .callbacks import Callback, Checkpoint
from .errors import DivergenceError
from .history import History
from .losses import Loss
from .metrics import Metric, measure
from .optim import LBFGS, Optimizer
from .programs import CHUNK
from .progress import PERIOD, open_display
from .schedules import Schedule

if TYPE_CHECKING:
    from ._blocks import Source
    from .augment import Augment
    from .network import Network


class Data(NamedTuple):
    """Samples and targets as the kernels take them."""

    x: Array
    y: Array
    weights: Weights | None = None


class Settings(NamedTuple):
    """What a fit was asked for."""

    loss: Loss
    metrics: tuple[Metric, ...]
    optimizer: Optimizer | LBFGS
    epochs: int
    batch_size: int
    accumulate: int  # batches to an update
    order: Array | None  # (epochs, N), or None: drawn where `shuffle`, else as the samples lie
    shuffle: bool
    precision: str | None
    augment: "Augment | None" = None


class Loop:
    """The compiled epoch loop with its data, and the book-keeping of what it has done."""

    def __init__(self, network: "Network", settings: Settings, data: Data, validated: bool) -> None:
        self.network = network
        assert isinstance(settings.optimizer, Optimizer)  # LBFGS has a loop of its own
        self.settings = settings
        self.optimizer = settings.optimizer
        self.data = data  # all samples; in a stream those at hand
        names = ("loss", *(metric.name for metric in settings.metrics))
        self.history = History(names + tuple(f"val_{name}" for name in names if validated))
        self.kind = settings.loss.kind(network.output_activation())
        self._per_update = settings.batch_size * settings.accumulate  # samples
        self.samples, self.updates = self._lengths()
        # Behind the last complete step: the epoch under way, see `_core.Trainer.position`, and what the
        # network gave for its samples, where a metric wants them.
        self.position: tuple[int, int, list[float]] = (0, network._step, [])
        self.outputs = self._all_outputs()
        self.optimizer._run(network)  # its checks, before anything is written
        augment, x = settings.augment, data.x
        self._augmenter = None if augment is None else augment.augmenter(x.shape[1:], x.dtype)
        self.optimizer_at_start = _described(self.optimizer)
        self._peak()

    def _lengths(self) -> tuple[int | None, int]:
        """Samples and updates of an epoch; None and 0 where that is not known."""
        samples = len(self.data.x)
        return samples, -(-samples // self._per_update)

    def _all_outputs(self) -> Array | None:
        """Where the network's outputs of an epoch go, if they are wanted."""
        if all(compiled_names(self.settings.metrics)):
            return None
        shape: Shape = (len(self.data.x), *self.network.output_dims)
        return np.zeros(shape, self.network.dtype)

    @property
    def steps(self) -> int:
        """Done since the fit began."""
        return self.history.epochs * self.updates + self.position[0] // self._per_update

    @property
    def batches_done(self) -> int:
        """Of the epoch under way."""
        return self.position[0] // self.settings.batch_size

    def begins_update(self, at: int) -> bool:
        """Whether one begins after so many samples of an epoch."""
        return self.samples is not None and 0 <= at < self.samples and at % self._per_update == 0

    def require_resumable(self) -> None:
        """ValueError where no checkpoint can be gone on from."""

    def resumed(self, position: tuple[int, int, list[float]], steps: int, batches: int) -> None:
        """An earlier run came so far."""
        self.position = position

    @property
    def over(self) -> bool:
        return self.history.epochs >= self.settings.epochs

    def run(self, epochs: int, steps: int | None = None) -> Iterator[dict[str, float]]:
        """Bring `epochs` epochs to their end, or do `steps` steps if that is less, and give the losses of
        each epoch that ended. What is committed is counted, whatever comes; after an exception the finished
        epochs are given first."""
        order, done = self.settings.order, self.history.epochs
        trainer, rows, failure = self._advance(
            epochs,
            steps,
            updates=(done + epochs) * self.updates - self.steps,
            order=None if order is None else order[done : done + epochs],
            shuffle=self.settings.shuffle and order is None,
            begin=self.position if self.position[0] else None,
            outputs=self.outputs,
        )
        if trainer.steps_done:
            self.position = trainer.position
        for row in rows:
            yield self._logs(row)
        if isinstance(failure, DivergenceError):
            raise self._explained(failure, done) from None
        if failure is not None:
            raise failure

    def _advance(
        self, epochs: int, steps: int | None, *, updates: int, outputs: Array | None, **where: Any
    ) -> tuple[_core.Trainer, list[tuple[float, ...]], BaseException | None]:
        """One call of the compiled loop on `data`, of at most `updates` updates: the trainer, which knows how
        far it came, the finished epochs, and what it raised. What is committed is counted."""
        network, settings = self.network, self.settings
        failure: BaseException | None = None
        # Asked for again each time: a callback may freeze a layer or change a rate.
        compiled = tuple(name for name in compiled_names(settings.metrics) if name)
        trainer = network._programs.trainer(
            network,
            settings.loss,
            compiled,
            settings.batch_size,
            settings.precision,
            outputs is not None,
            settings.accumulate,
        )
        run = self.optimizer._run(network)
        where |= given(self.data.weights)
        try:
            rows = trainer.run(
                self.data.x,
                self.data.y,
                epochs=epochs,
                key=network._key,
                step=network._step,
                rule=self.optimizer.rule,
                hyper=run.hyper if self._schedule is None else {**run.hyper, "lr": self._peak()},
                updates=run.steps,
                ranges=run.ranges,
                steps=steps,
                rates=self._rates(updates if steps is None else min(updates, steps)),
                outputs=outputs,
                scale=_bytes.scale_of(network),
                augmenter=self._augmenter,
                **where,
            )
        except BaseException as error:
            failure, rows = error, trainer.partial
        network._step += trainer.steps_done
        run.advance(trainer.steps_done)
        return trainer, rows, failure

    def close(self) -> None:
        """The end of the fit."""

    @property
    def _schedule(self) -> Schedule | None:
        lr = self.optimizer.lr
        return lr if isinstance(lr, Schedule) else None

    def _rates(self, count: int) -> Array | None:
        """Of the next `count` updates."""
        if self._schedule is None:
            return None
        return self._schedule.rates(self.steps, count, self.updates, self.settings.epochs * self.updates)

    def _peak(self) -> float:
        """The schedule's largest rate of the whole fit: the form of the compiled loop depends on it, and must
        not depend on how the fit is cut into parts."""
        schedule = self._schedule
        if schedule is None:
            return math.nan
        if getattr(self, "_peak_of", None) is not schedule:
            self._peak_of = schedule
            self._highest = schedule.peak(self.updates, self.settings.epochs * self.updates)
        return self._highest

    def _logs(self, row: Sequence[float]) -> dict[str, float]:
        """An epoch's loss and metrics by name."""

        def outputs() -> tuple[Array, Array]:
            assert self.outputs is not None
            return self.data.y, self.outputs

        weight = None if self.data.weights is None else self.data.weights.metrics
        return by_name(row, self.settings.metrics, outputs, self.kind, weight)

    def validate(self, held: "Data | Source") -> dict[str, float]:
        """Losses and metrics of the held-out data, called val_..."""
        figures = scores(self.network, self.settings.loss, self.settings.metrics, held)
        return {f"val_{name}": value for name, value in figures.items()}

    def _explained(self, error: DivergenceError, done: int) -> DivergenceError:
        """The error with its epoch counted from the start of the fit, not of the last call of the loop, and
        with the data named where they are at fault."""
        message = re.sub(r"epoch (\d+)", lambda match: f"epoch {int(match[1]) + done}", str(error), count=1)
        for name, array in (("x", self.data.x), ("y", self.data.y)):
            if not np.isfinite(array).all():
                message = f"{message}; {name.replace('x', 'X')} itself holds NaN or infinities"
        return DivergenceError(message)


def scores(
    network: "Network", loss: Loss, metrics: Sequence[Metric], data: "Data | Source"
) -> dict[str, float]:
    """Mean loss and metrics of a data set, without dropout."""
    if not isinstance(data, Data):
        from . import _stream

        return _stream.scores(network, loss, metrics, data)
    compiled = tuple(name for name in compiled_names(metrics) if name)
    evaluator = network._programs.evaluator(network, loss, compiled)
    row: Sequence[float]
    if _bytes.is_bytes(data.x):
        parts: list[Scored] = []
        for rows, x in _bytes.chunks(data.x, _bytes.scale_of(network), network.dtype, CHUNK):
            weights = None if data.weights is None else data.weights.part(rows)
            found = evaluator.run(x, data.y[rows], **given(weights))
            parts.append(Scored.of(found, len(x), weights))
        row = together(parts)
    else:
        row = evaluator.run(data.x, data.y, **given(data.weights))
    weight = None if data.weights is None else data.weights.metrics
    kind = loss.kind(network.output_activation())
    return by_name(row, metrics, lambda: (data.y, inference.outputs(network, data.x)), kind, weight)


class Scored(NamedTuple):
    """Means of the loss and metrics of a part of the samples, and what it counts in those of all."""

    row: Sequence[float]
    loss: float
    metrics: float

    @classmethod
    def of(cls, row: Sequence[float], rows: int, weights: Weights | None = None) -> "Scored":
        metrics = None if weights is None else weights.metrics
        return cls(
            row,
            rows if weights is None else float(weights.loss.sum()),
            rows if metrics is None else float(metrics.sum()),
        )


def together(parts: Sequence[Scored]) -> list[float]:
    """The means of the whole."""

    def mean(values: Sequence[float], counts: Sequence[float]) -> float:
        pairs = [(value, count) for value, count in zip(values, counts, strict=True) if count]
        total = math.fsum(count for _, count in pairs)
        return math.fsum(value * count for value, count in pairs) / total if total else math.nan

    loss, *metrics = zip(*(part.row for part in parts), strict=True)
    of_metrics = [part.metrics for part in parts]
    return [mean(loss, [part.loss for part in parts]), *(mean(values, of_metrics) for values in metrics)]


def _described(optimizer: Optimizer) -> dict[str, Any]:
    """Its class and settings, as JSON gives them back."""
    settings = {"class": type(optimizer).__name__, **optimizer._config()}

    def other(value: Any) -> Any:
        return value.config() if isinstance(value, Schedule) else getattr(value, "__name__", repr(value))

    described: dict[str, Any] = json.loads(json.dumps(settings, default=other))
    return described


def compiled_names(metrics: Sequence[Metric]) -> list[str | None]:
    return [metric.compiled for metric in metrics]


def by_name(
    row: Sequence[float],
    metrics: Sequence[Metric],
    outputs: Callable[[], tuple[Array, Array]],
    kind: str,
    weight: Array | None = None,
) -> dict[str, float]:
    """`row`: the loss and the compiled metrics; the others are measured on all targets and outputs at
    once."""
    summed = iter(row)
    logs = {"loss": next(summed)}
    found: tuple[Array, Array] | None = None
    for metric in metrics:
        if metric.compiled:
            logs[metric.name] = next(summed)
            continue
        found = found or outputs()
        logs[metric.name] = measure(metric, *found, kind, weight)
    return logs


def run(
    loop: Loop,
    held: "Data | Source | None",
    show: bool | None,
    callbacks: Sequence[Callback],
    *,
    ended: bool = False,
) -> None:
    """Train to the end, coming back to Python as seldom as what is due on the way allows. `ended`: a
    checkpoint says that a callback had ended the training."""
    history, epochs = loop.history, loop.settings.epochs
    display = open_display(epochs, show)
    every_epoch = held is not None or bool(callbacks) or loop.outputs is not None
    count = epochs if display is None and not every_epoch else 1
    checkpoints = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    pause = min((point.steps for point in checkpoints if point.steps), default=None)
    begun = -1  # the epoch whose callbacks know of it
    start = time.perf_counter() - history.seconds
    try:
        while not (loop.over or ended):
            if begun != history.epochs:
                begun = history.epochs
                for callback in callbacks:
                    callback.on_epoch_begin(loop.network, history.epochs + 1)
            began = time.perf_counter()
            logs: dict[str, float] = {}
            steps = None if pause is None else pause - loop.steps % pause
            for logs in loop.run(min(count, epochs - history.epochs), steps):
                if held is not None:
                    logs |= loop.validate(held)
                history._append(logs)
            if not logs and pause is None:
                break  # the optimizer has converged
            history.seconds = time.perf_counter() - start
            if logs:
                if display is not None:
                    display.show(history.epochs, logs)
                ends = [callback.on_epoch_end(loop.network, history.epochs, logs) for callback in callbacks]
                ended = any(ends)
            for point in checkpoints:
                if point.due(loop, bool(logs), ended):
                    point.write(loop, callbacks, ended)
            if not every_epoch:
                fitting = int(count * PERIOD / max(time.perf_counter() - began, 1e-6))
                count = min(max(fitting, 1), max(epochs - history.epochs, 1))
        history.seconds = time.perf_counter() - start
        for callback in callbacks:
            callback.on_train_end(loop.network, history)
    finally:
        history.seconds = time.perf_counter() - start
        if display is not None:
            display.close()
