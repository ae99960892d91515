"""Where the blocks of a fit come from: rows of a store, or an iterable of batches."""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from . import _sources, building, inference
from ._prefetch import Block, Buffer, EpochEnd, Item, Ring
from ._sources import Checks, Passes, blocks_of
from .arrays import Array, any_array
from .errors import ShapeError
from .losses import Loss

if TYPE_CHECKING:
    from .network import Network

Made = TypeVar("Made")

_END = object()


class Start(NamedTuple):
    """Where a run begins: an epoch, what of it is done, and the number of its order."""

    epoch: int = 0
    at: int = 0  # samples
    batches: int = 0
    draw: int = 0


class Source:
    """Samples that come in blocks, epoch after epoch."""

    checks: Checks
    samples: int | None  # of an epoch; None where that is not known
    batches: int | None  # the same of batches
    batch_size: int  # the most in a batch
    first_y: Array  # targets of the first samples
    once = False  # its samples cannot be had again

    def items(self, ring: Ring, start: Start, shuffled: bool) -> Iterator[Item]:
        """Blocks and ends of epochs, for ever."""
        raise NotImplementedError

    def _buffer(self, rows: int) -> Buffer:
        x = np.empty((rows, *self.checks.input_shape), self.checks.dtype)
        return Buffer(x, np.empty((rows, *self.first_y.shape[1:]), self.first_y.dtype))

    def _row_bytes(self) -> int:
        return math.prod(self.checks.input_shape) * np.dtype(self.checks.dtype).itemsize


class StoreSource(Source):
    """Rows of what can be sliced."""

    def __init__(
        self,
        network: "Network",
        X: Any,
        y: Any,
        loss: Loss,
        batch_size: int | None,
        accumulate: int,
        which: str,
    ) -> None:
        self._X, self._y, self._which = X, y, which
        self.samples = _sources.length(X)
        if self.samples == 0:
            raise ShapeError(f"{which}X holds no samples")
        self.checks = _checks(network, X[0:1], loss, which)
        streams = _sources.is_store(y) or _sources.is_mapped(y)
        if streams and _sources.length(y) != self.samples:
            raise ShapeError(f"{which}X has {self.samples} samples, {which}y {_sources.length(y)}")
        if not streams:
            self._y = self.checks.targets(y, self.samples, which)
        self._streams_y = streams
        self.first_y = self._targets(0, 1)
        self.batch_size = self.samples if batch_size is None else min(batch_size, self.samples)
        self.batches = -(-self.samples // self.batch_size)
        update = self.batch_size * accumulate
        self._updates = -(-self.samples // update)
        self._block, self._piece = _sources.block_sizes(X, update, self._row_bytes())
        self._network = network

    def items(self, ring: Ring, start: Start, shuffled: bool) -> Iterator[Item]:
        assert self.samples is not None
        at, most = start.at, min(self._block, self.samples)
        for epoch in itertools.count():
            draw = start.draw + epoch * self._updates
            generator = building.order_generator(self._network, draw) if shuffled else None
            first = 0
            for stretches, order in blocks_of(self.samples, self._block, self._piece, generator):
                rows = sum(end - begin for begin, end in stretches)
                if first + rows > at:
                    buffer = ring.take(lambda: self._buffer(most))
                    self._read(stretches, buffer)
                    batches = first // self.batch_size
                    x, y = buffer.x[:rows], buffer.y[:rows]
                    yield Block(buffer, x, y, order, (), first, batches, max(0, at - first))
                first += rows
            yield EpochEnd(self.samples)
            at = 0

    def _read(self, stretches: Sequence[tuple[int, int]], buffer: Buffer) -> None:
        at = 0
        for begin, end in stretches:
            rows = slice(at, at + end - begin)
            where = f"{self._which}rows {begin} to {end - 1}: "
            x = self.checks.inputs(_noted(operator.getitem, self._X, where, slice(begin, end)), where)
            if len(x) != end - begin:
                raise ShapeError(f"{where}X[{begin}:{end}] has {len(x)} rows")
            buffer.x[rows] = x
            buffer.y[rows] = self._targets(begin, end)
            at += end - begin

    def _targets(self, begin: int, end: int) -> Array:
        if not self._streams_y:
            targets: Array = self._y[begin:end]
            return targets
        where = f"{self._which}rows {begin} to {end - 1}: "
        return self.checks.targets(
            _noted(operator.getitem, self._y, where, slice(begin, end)), end - begin, where
        )


class BatchSource(Source):
    """An iterable of batches."""

    def __init__(
        self,
        network: "Network",
        given: Any,
        loss: Loss,
        steps_per_epoch: int | None,
        accumulate: int,
        which: str,
    ) -> None:
        self._passes = Passes(given)
        self._steps, self._accumulate, self._which = steps_per_epoch, accumulate, which
        self.once = self._passes.once
        self.samples = None
        self.batches = steps_per_epoch or self._passes.length
        # The first batch says what the others must be like, before anything is written.
        iterator = self._passes.begin(0)
        where = self._where(0, 0)
        batch = _noted(next, iterator, where, _END)
        if batch is _END:
            raise ValueError(f"{where}there is none; X gives no batches")
        X, y = _sources.pair_of(batch, where)
        self.checks = _checks(network, X, loss, where)
        self.batch_size = len(self.checks.inputs(X, where))
        self.first_y = self.checks.targets(y, self.batch_size, where)
        self._looked_at: tuple[Iterator[Any], Any] | None = (iterator, batch)
        group = self.batch_size * accumulate
        self._room = max(1, _sources.BLOCK // (self._row_bytes() * group)) * group
        if self.batches is not None:
            self._room = min(self._room, -(-self.batches // accumulate) * group)

    def items(self, ring: Ring, start: Start, shuffled: bool) -> Iterator[Item]:
        iterator: Iterator[Any] | None = None
        at, done = start.at, start.batches
        try:
            for epoch in itertools.count(start.epoch):
                if iterator is None or self._steps is None:
                    self._close(iterator)
                    iterator = self._begin(epoch)
                if epoch == start.epoch:
                    self._skip(iterator, start)
                yield from self._epoch(ring, iterator, epoch, at, done)
                at = done = 0
        finally:
            self._close(iterator)

    def _begin(self, epoch: int) -> Iterator[Any]:
        looked_at, self._looked_at = self._looked_at, None
        if looked_at is None:
            return self._passes.begin(epoch)
        iterator, batch = looked_at
        if self.once:
            return itertools.chain([batch], iterator)
        again = _again(batch, iterator)
        if epoch == 0 or self._steps is not None:
            return again
        self._close(again)
        return self._passes.begin(epoch)

    def _close(self, iterator: Iterator[Any] | None) -> None:
        """A generator that was begun here is ended here."""
        if isinstance(iterator, GeneratorType) and not self.once:
            iterator.close()

    def _skip(self, iterator: Iterator[Any], start: Start) -> None:
        """Past the batches that an earlier run has done. ValueError where they have other samples."""
        for number in range(start.epoch * (self._steps or 0)):
            self._next(iterator, number // (self._steps or 1), number % (self._steps or 1))
        samples = 0
        for number in range(start.batches):
            batch = self._next(iterator, start.epoch, number)
            if batch is not _END:
                samples += len(_sources.pair_of(batch, self._where(start.epoch, number))[0])
        if samples != start.at:
            where = self._where(start.epoch, start.batches)
            raise ValueError(
                f"{where}{samples} samples come before it, {start.at} did when the checkpoint was written"
            )

    def _epoch(self, ring: Ring, iterator: Iterator[Any], epoch: int, at: int, done: int) -> Iterator[Item]:
        """The items of an epoch, of which `at` samples in `done` batches are behind."""
        growing = _Growing(at, done)
        failure: Exception | None = None
        offered = False
        while growing.batches != self.batches:
            pair, failure = self._read(iterator, epoch, growing.batches)
            if offered and not ring.withdraw():  # it is being trained on
                growing.begin_next()
            offered = False
            if pair is None:
                break
            buffer = growing.buffer or ring.take(lambda: self._buffer(self._room))
            growing.add(buffer, *pair)
            if len(growing.sizes) % self._accumulate != 0:
                continue
            if growing.rows + self.batch_size * self._accumulate <= self._room:
                ring.offer(growing.block())
                offered = True
            else:
                yield growing.block()
                growing.begin_next()
        if offered and not ring.withdraw():
            growing.begin_next()
        if failure is not None:  # what came before it is trained on, as far as it makes whole updates
            del growing.sizes[len(growing.sizes) // self._accumulate * self._accumulate :]
        if growing.sizes:
            yield growing.block()
        if failure is not None:
            raise failure
        samples = growing.at + growing.rows
        if samples == 0:
            raise ValueError(f"{self._where(epoch, 0)}there is none; X gives no more batches")
        if self._steps is None and self.batches is not None and next(iterator, _END) is not _END:
            raise ValueError(f"{self._where(epoch, self.batches)}len(X) is {self.batches}, but it gives more")
        yield EpochEnd(samples)

    def _read(
        self, iterator: Iterator[Any], epoch: int, number: int
    ) -> tuple[tuple[Array, Array] | None, Exception | None]:
        """The next batch, checked; None at the end, and where it cannot be had with the reason."""
        where = self._where(epoch, number)
        try:
            batch = self._next(iterator, epoch, number)
            if batch is not _END:
                return self._checked(batch, where), None
            if self.batches is not None:
                name = "steps_per_epoch" if self._steps else "len(X)"
                raise ValueError(f"{where}there is none; {name} is {self.batches}")
        except Exception as error:
            return None, error
        return None, None

    def _next(self, iterator: Iterator[Any], epoch: int, number: int) -> Any:
        return _noted(next, iterator, self._where(epoch, number), _END)

    def _checked(self, batch: Any, where: str) -> tuple[Array, Array]:
        X, y = _sources.pair_of(batch, where)
        x = self.checks.inputs(X, where)
        if not 1 <= len(x) <= self.batch_size:
            raise ShapeError(
                f"{where}X has {len(x)} samples; 1 to {self.batch_size}, as in the first, are due"
            )
        return x, self.checks.targets(y, len(x), where)

    def _where(self, epoch: int, number: int) -> str:
        return f"{self._which}epoch {epoch + 1}, batch {number + 1}: "


class _Growing:
    """A block that grows batch by batch, behind `at` samples in `done` batches of its epoch."""

    def __init__(self, at: int, done: int) -> None:
        self.at, self._done = at, done
        self.buffer: Buffer | None = None
        self.sizes: list[int] = []
        self.rows = 0

    @property
    def batches(self) -> int:
        """Of the epoch, to its end."""
        return self._done + len(self.sizes)

    def add(self, buffer: Buffer, x: Array, y: Array) -> None:
        self.buffer, rows = buffer, slice(self.rows, self.rows + len(x))
        buffer.x[rows], buffer.y[rows] = x, y
        self.sizes.append(len(x))
        self.rows = rows.stop

    def block(self) -> Block:
        assert self.buffer is not None
        rows = sum(self.sizes)
        x, y = self.buffer.x[:rows], self.buffer.y[:rows]
        return Block(self.buffer, x, y, None, tuple(self.sizes), self.at, self._done, 0)

    def begin_next(self) -> None:
        """Somebody else has it now."""
        self.at, self._done = self.at + self.rows, self.batches
        self.buffer, self.sizes, self.rows = None, [], 0


def _again(batch: Any, iterator: Iterator[Any]) -> Iterator[Any]:
    yield batch
    yield from iterator


def _checks(network: "Network", X: Any, loss: Loss, where: str) -> Checks:
    """What the samples must be like, from the first; builds the network where that is not done."""
    x, single = inference.batch_of(network, any_array(X, f"{where}X"), f"{where}X", keep_bytes=True)
    if single:
        raise ShapeError(f"{where}X has shape {x.shape[1:]}, one sample; a batch (N, ...) is due")
    kind = loss.kind(network.output_activation())
    return Checks(network, x, kind)


def _noted(call: Callable[..., Made], argument: Any, where: str, *more: Any) -> Made:
    """What the user's own code gives; where it raises, a note says what was asked of it."""
    try:
        return call(argument, *more)
    except Exception as error:
        error.add_note(f"{where}raised while it was read")
        raise
