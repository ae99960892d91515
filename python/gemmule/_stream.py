"""Training on, and scoring of, data that come in blocks."""

import bisect
import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _bytes, _sources, inference
from ._blocks import BatchSource, Source, Start, StoreSource
from ._loop import Data, Loop, Scored, Settings, by_name, compiled_names, together
from ._prefetch import Block, EpochEnd, Prefetcher
from .arrays import Array
from .callbacks import Callback, Checkpoint
from .errors import DivergenceError
from .layers.base import positive_int
from .losses import Loss
from .metrics import Metric
from .optim import LBFGS
from .programs import CHUNK
from .schedules import Schedule

if TYPE_CHECKING:
    from .network import Network

DEFAULT_BATCH = 32  # of fit


def source_of(
    network: "Network",
    X: Any,
    y: Any,
    loss: Loss,
    metrics: Sequence[Metric],
    *,
    batch_size: int | None,
    accumulate: int = 1,
    steps_per_epoch: int | None = None,
    by_blocks: bool = False,
    which: str = "",
) -> Source | None:
    """A source for data that must not be taken whole; None for arrays. Builds the network."""
    source: Source
    if y is None:
        if _sources.is_store(X) or isinstance(X, np.ndarray):
            raise TypeError(f"{which}y is missing")
        source = BatchSource(network, X, loss, steps_per_epoch, accumulate, which)
    elif by_blocks or _sources.must_stream(X, network.dtype, network.layout):
        source = StoreSource(network, X, y, loss, batch_size, accumulate, which)
    else:
        return None
    for metric in metrics:
        metric.check(
            loss.kind(network.output_activation()),
            int(np.prod(network.output_dims)),
            source.first_y.ndim == 1,
        )
    return source


def for_fit(
    network: "Network",
    X: Any,
    y: Any,
    *,
    loss: Loss,
    metrics: Sequence[Metric],
    batch_size: int | None,
    accumulate: int,
    shuffle: Any,
    steps_per_epoch: int | None,
    validation_split: float,
    weighted: bool,
) -> Source | None:
    """`source_of` with what `fit` was asked for; ValueError for what does not go with a source."""
    by_blocks = isinstance(shuffle, str)
    if by_blocks and shuffle != "blocks":
        raise ValueError(f"fit: shuffle is {shuffle!r}; it is True, False, 'blocks' or an array of indices")
    if y is None and batch_size not in (DEFAULT_BATCH, None):
        raise ValueError(f"fit: batch_size is {batch_size}, but X gives its own batches, each of them a step")
    if y is None and by_blocks:
        raise ValueError("fit: shuffle='blocks' is for what can be sliced; batches are taken as they come")
    if steps_per_epoch is not None:
        steps_per_epoch = positive_int(steps_per_epoch, "fit: steps_per_epoch")
        if y is not None:
            raise ValueError("fit: steps_per_epoch goes with an iterable of batches, where y is None")
    if batch_size is not None:
        batch_size = positive_int(batch_size, "fit: batch_size")
    source = source_of(
        network,
        X,
        y,
        loss,
        metrics,
        batch_size=batch_size,
        accumulate=accumulate,
        steps_per_epoch=steps_per_epoch,
        by_blocks=by_blocks,
    )
    if source is None:
        return None
    if weighted:
        raise ValueError("fit: sample_weight and class_weight are for arrays in memory")
    if validation_split:
        raise ValueError("fit: validation_split divides arrays in memory; give validation_data")
    if not isinstance(shuffle, bool | np.bool_ | str):
        raise ValueError("fit: shuffle indices are for arrays in memory; True shuffles by blocks")
    return source


class StreamLoop(Loop):
    """The training loop of a source: one call of the compiled loop a block."""

    def __init__(
        self,
        network: "Network",
        settings: Settings,
        source: Source,
        validated: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        if isinstance(settings.optimizer, LBFGS):
            raise ValueError("fit: LBFGS takes all samples at once, as arrays in memory")
        if isinstance(settings.optimizer.lr, Schedule) and source.batches is None:
            raise ValueError(
                "fit: a schedule needs the length of an epoch: give steps_per_epoch, or batches with a len"
            )
        self._source = source
        self._reader: Prefetcher | None = None
        self._item: Block | EpochEnd | None = None  # the next: read, and not done yet
        self._offset = 0  # samples of it that are done
        self._steps_done = self._batches_done = 0  # since the fit began; of the epoch under way
        empty = Data(np.empty((0, *source.checks.input_shape), source.checks.dtype), source.first_y[:0])
        super().__init__(network, settings, empty, validated)
        self._measures = not all(compiled_names(settings.metrics))
        self._found: list[tuple[Array, Array]] = []  # targets and outputs of the epoch's blocks
        self._outputs_now: Array | None = None  # of the block under way
        within = any(isinstance(callback, Checkpoint) and callback.steps for callback in callbacks)
        if within and self._measures:
            names = [metric.name for metric in settings.metrics if not metric.compiled]
            raise ValueError(
                f"fit: metric {names[0]!r} needs all outputs of an epoch; a Checkpoint with steps keeps them "
                "for arrays in memory alone"
            )

    def _lengths(self) -> tuple[int | None, int]:
        batches = self._source.batches
        return self._source.samples, 0 if batches is None else -(-batches // self.settings.accumulate)

    def _all_outputs(self) -> Array | None:
        return None

    @property
    def steps(self) -> int:
        return self._steps_done

    @property
    def batches_done(self) -> int:
        return self._batches_done

    def begins_update(self, at: int) -> bool:
        return super().begins_update(at) if self.samples is not None else at >= 0

    def require_resumable(self) -> None:
        if self._source.once:
            raise ValueError(
                "fit: resume needs batches that can be had again; give a function that begins anew"
            )

    def resumed(self, position: tuple[int, int, list[float]], steps: int, batches: int) -> None:
        super().resumed(position, steps, batches)
        self._steps_done, self._batches_done = steps, batches

    def run(self, epochs: int, steps: int | None = None) -> Iterator[dict[str, float]]:
        goal = None if steps is None else self._steps_done + steps
        while epochs > 0:
            if self._steps_done == goal and not isinstance(self._next(), EpochEnd):
                return
            item = self._next()
            if isinstance(item, EpochEnd):
                self._item = None
                epochs -= 1
                yield self._end_epoch(item)
            else:
                self._train(item, None if goal is None else goal - self._steps_done)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _next(self) -> Block | EpochEnd:
        if self._reader is None:
            start = Start(self.history.epochs, self.position[0], self._batches_done, self.position[1])
            shuffled = self.settings.shuffle
            self._reader = Prefetcher(lambda ring: self._source.items(ring, start, shuffled))
        if self._item is None:
            self._item = self._reader.get()
            if isinstance(self._item, Block):
                self._offset = self._item.skipped
                shape = (len(self._item.x), *self.network.output_dims)
                self._outputs_now = np.zeros(shape, self.network.dtype) if self._measures else None
        return self._item

    def _train(self, block: Block, steps: int | None) -> None:
        """The rest of a block, or `steps` steps if that is less."""
        assert self._reader is not None
        self.data = Data(block.x, block.y)
        _, draw, sums = self.position
        batches = len(block.sizes) or -(-len(block.x) // self.settings.batch_size)
        behind = self._batches_in(block, self._offset)
        trainer, _, failure = self._advance(
            1,
            steps,
            updates=-(-(batches - behind) // self.settings.accumulate),
            order=None if block.order is None else block.order[None],
            shuffle=False,
            begin=(self._offset, 0, sums) if sums else None,
            sizes=block.sizes,
            outputs=self._outputs_now,
        )
        if trainer.steps_done:
            at, _, sums = trainer.position
            self._offset = at or len(block.x)
            self._steps_done += trainer.steps_done
            self._batches_done = block.batches + self._batches_in(block, self._offset)
            self.position = (block.first + self._offset, draw, sums)
            if at == 0:
                if self._outputs_now is not None:
                    self._found.append((block.y.copy(), self._outputs_now))
                self._item = None
                self._reader.release(block)
        if isinstance(failure, DivergenceError):
            raise self._explained(failure, self.history.epochs, block.batches) from None
        if failure is not None:
            raise failure

    def _batches_in(self, block: Block, samples: int) -> int:
        if block.sizes:
            return bisect.bisect_left(list(itertools.accumulate(block.sizes, initial=0)), samples)
        return -(-samples // self.settings.batch_size)

    def _end_epoch(self, end: EpochEnd) -> dict[str, float]:
        _, draw, sums = self.position
        self.position, self._batches_done = (0, draw + self.updates, []), 0
        found, self._found = self._found, []

        def outputs() -> tuple[Array, Array]:
            return np.concatenate([y for y, _ in found]), np.concatenate([out for _, out in found])

        return by_name([value / end.samples for value in sums], self.settings.metrics, outputs, self.kind)

    def _explained(self, error: DivergenceError, done: int, batches: int = 0) -> DivergenceError:
        """Its batch counted from the start of the epoch, too."""
        message = str(super()._explained(error, done))
        return DivergenceError(
            re.sub(r"batch (\d+)", lambda match: f"batch {int(match[1]) + batches}", message, count=1)
        )


def scores(network: "Network", loss: Loss, metrics: Sequence[Metric], source: Source) -> dict[str, float]:
    """Mean loss and metrics of a pass over a source, without dropout."""
    compiled = compiled_names(metrics)
    evaluator = network._programs.evaluator(network, loss, tuple(name for name in compiled if name))
    parts: list[Scored] = []
    found: list[tuple[Array, Array]] = []
    with contextlib.closing(Prefetcher(lambda ring: source.items(ring, Start(), False))) as reader:
        while isinstance(block := reader.get(), Block):
            pieces: Any = [(slice(None), block.x)]
            if source.checks.bytes:
                pieces = _bytes.chunks(block.x, _bytes.scale_of(network), network.dtype, CHUNK)
            for part, x in pieces:
                y = block.y[part]
                parts.append(Scored.of(evaluator.run(x, y), len(x)))
                if not all(compiled):
                    found.append((y.copy(), inference.outputs(network, x)))
            reader.release(block)

    def outputs() -> tuple[Array, Array]:
        return np.concatenate([y for y, _ in found]), np.concatenate([out for _, out in found])

    return by_name(together(parts), metrics, outputs, loss.kind(network.output_activation()))
