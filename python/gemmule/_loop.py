"""The epoch loop as Python sees it: calls of the compiled one, and what happens between them."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import inference
from ._weights import Weights, given
from .arrays import Array, Shape
from .callbacks import Callback, Checkpoint
from .errors import DivergenceError
from .history import History
from .losses import Loss
from .metrics import Metric, measure
from .optim import LBFGS, Optimizer
from .progress import PERIOD, open_display
from .schedules import Schedule

if TYPE_CHECKING:
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
    order: Array | None  # (epochs, N), or None: drawn where `shuffle`, else as the samples lie
    shuffle: bool
    precision: str | None


class Loop:
    """The compiled epoch loop with its data, and the book-keeping of what it has done."""

    def __init__(self, network: "Network", settings: Settings, data: Data, validated: bool) -> None:
        self.network = network
        assert isinstance(settings.optimizer, Optimizer)  # LBFGS has a loop of its own
        self.settings = settings
        self.optimizer = settings.optimizer
        self.data = data
        names = ("loss", *(metric.name for metric in settings.metrics))
        self.history = History(names + tuple(f"val_{name}" for name in names if validated))
        self.kind = settings.loss.kind(network.output_activation())
        self.batches = -(-len(data.x) // settings.batch_size)  # an epoch's
        # Behind the last complete step: the epoch under way, see `_core.Trainer.position`, and what the
        # network gave for its samples, where a metric wants them.
        self.position: tuple[int, int, list[float]] = (0, network._step, [])
        self.outputs = None if all(_compiled(settings.metrics)) else _outputs_for(network, len(data.x))
        self.optimizer._run(network)  # its checks, before anything is written
        self.optimizer_at_start = _described(self.optimizer)
        self._peak()

    @property
    def steps(self) -> int:
        """Done since the fit began."""
        return self.history.epochs * self.batches + self.position[0] // self.settings.batch_size

    @property
    def over(self) -> bool:
        return self.history.epochs >= self.settings.epochs

    def run(self, epochs: int, steps: int | None = None) -> Iterator[dict[str, float]]:
        """Bring `epochs` epochs to their end, or do `steps` steps if that is less, and give the losses of
        each epoch that ended. What is committed is counted, whatever comes; after an exception the finished
        epochs are given first."""
        network, settings, done = self.network, self.settings, self.history.epochs
        failure: BaseException | None = None
        # Asked for again each time: a callback may freeze a layer or change a rate.
        compiled = tuple(name for name in _compiled(settings.metrics) if name)
        trainer = network._programs.trainer(
            network,
            settings.loss,
            compiled,
            settings.batch_size,
            settings.precision,
            self.outputs is not None,
        )
        run = self.optimizer._run(network)
        try:
            rows = trainer.run(
                self.data.x,
                self.data.y,
                epochs=epochs,
                order=None if settings.order is None else settings.order[done : done + epochs],
                shuffle=settings.shuffle and settings.order is None,
                key=network._key,
                step=network._step,
                rule=self.optimizer.rule,
                hyper=run.hyper if self._schedule is None else {**run.hyper, "lr": self._peak()},
                updates=run.steps,
                ranges=run.ranges,
                begin=self.position if self.position[0] else None,
                steps=steps,
                rates=self._rates(epochs, steps),
                outputs=self.outputs,
                **given(self.data.weights),
            )
        except BaseException as error:
            failure, rows = error, trainer.partial
        network._step += trainer.steps_done
        run.advance(trainer.steps_done)
        if trainer.steps_done:
            self.position = trainer.position
        for row in rows:
            yield self._logs(row)
        if isinstance(failure, DivergenceError):
            raise self._explained(failure, done) from None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """The end of the fit."""

    @property
    def _schedule(self) -> Schedule | None:
        lr = self.optimizer.lr
        return lr if isinstance(lr, Schedule) else None

    def _rates(self, epochs: int, steps: int | None) -> Array | None:
        if self._schedule is None:
            return None
        count = (self.history.epochs + epochs) * self.batches - self.steps
        count = count if steps is None else min(count, steps)
        return self._schedule.rates(self.steps, count, self.batches, self.settings.epochs * self.batches)

    def _peak(self) -> float:
        """The schedule's largest rate of the whole fit: the form of the compiled loop depends on it, and must
        not depend on how the fit is cut into parts."""
        schedule = self._schedule
        if schedule is None:
            return math.nan
        if getattr(self, "_peak_of", None) is not schedule:
            self._peak_of = schedule
            self._highest = schedule.peak(self.batches, self.settings.epochs * self.batches)
        return self._highest

    def _logs(self, row: Sequence[float]) -> dict[str, float]:
        """An epoch's loss and metrics by name."""
        return _by_name(row, self.settings.metrics, self.data, lambda: self.outputs, self.kind)

    def validate(self, held: Data) -> dict[str, float]:
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


def scores(network: "Network", loss: Loss, metrics: Sequence[Metric], data: Data) -> dict[str, float]:
    """Mean loss and metrics of a data set, without dropout."""
    compiled = tuple(name for name in _compiled(metrics) if name)
    evaluator = network._programs.evaluator(network, loss, compiled)
    row = evaluator.run(data.x, data.y, **given(data.weights))
    kind = loss.kind(network.output_activation())
    return _by_name(row, metrics, data, lambda: inference.predict(network, data.x), kind)


def _described(optimizer: Optimizer) -> dict[str, Any]:
    """Its class and settings, as JSON gives them back."""
    settings = {"class": type(optimizer).__name__, **optimizer._config()}

    def other(value: Any) -> Any:
        return value.config() if isinstance(value, Schedule) else getattr(value, "__name__", repr(value))

    described: dict[str, Any] = json.loads(json.dumps(settings, default=other))
    return described


def _compiled(metrics: Sequence[Metric]) -> list[str | None]:
    return [metric.compiled for metric in metrics]


def _by_name(
    row: Sequence[float],
    metrics: Sequence[Metric],
    data: Data,
    outputs: Callable[[], Array | None],
    kind: str,
) -> dict[str, float]:
    """`row`: the loss and the compiled metrics; the others are measured on all outputs at once."""
    summed = iter(row)
    logs = {"loss": next(summed)}
    weight = None if data.weights is None else data.weights.metrics
    output: Any = None
    for metric in metrics:
        if metric.compiled:
            logs[metric.name] = next(summed)
            continue
        output = outputs() if output is None else output
        logs[metric.name] = measure(metric, data.y, output, kind, weight)
    return logs


def _outputs_for(network: "Network", rows: int) -> Array:
    shape: Shape = (rows, *network.output_dims)
    return np.zeros(shape, network.dtype)


def run(
    loop: Loop, held: Data | None, show: bool | None, callbacks: Sequence[Callback], *, ended: bool = False
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
