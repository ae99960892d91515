"""A thread that makes blocks of data while others are trained on."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .arrays import Array

BUFFERS = 2  # one is trained on, one is filled
_WAIT = 0.05
_PATIENCE = 0.1  # seconds that closing waits: an iterator that blocks must not hold up Ctrl-C


class Buffer(NamedTuple):
    """Memory of a block, used again and again."""

    x: Array
    y: Array


class Block(NamedTuple):
    """Samples to train on, whole updates of them unless they are the last of an epoch."""

    buffer: Buffer
    x: Array
    y: Array
    order: Array | None  # in which they are trained on
    sizes: tuple[int, ...]  # of the batches, where each has its own
    first: int  # samples of the epoch before it
    batches: int  # of the epoch before it
    skipped: int  # of its samples, which an earlier run has done


class EpochEnd(NamedTuple):
    """All blocks of an epoch have come."""

    samples: int


Item = Block | EpochEnd


class StoppedError(Exception):
    """The thread is to end."""


class Ring:
    """Where the thread and the one who waits for it meet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[Item | BaseException] = deque()
        self._offered: Block | None = None
        self._free: deque[Buffer | None] = deque([None] * BUFFERS)  # None: not made yet
        self._stopped = False

    # By the thread; StoppedError once it is to end.

    def take(self, make: Callable[[], Buffer]) -> Buffer:
        """A buffer that nobody reads; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._stopped)
            self._go_on()
            buffer = self._free.popleft()
        return buffer or make()

    def put(self, item: Item | BaseException) -> None:
        """The next item."""
        with self._changed:
            self._go_on()
            self._ready.append(item)
            self._changed.notify_all()

    def offer(self, block: Block) -> None:
        """A block that could be longer, for whoever waits already."""
        with self._changed:
            self._go_on()
            self._offered = block
            self._changed.notify_all()

    def withdraw(self) -> bool:
        """Take the offer back; False where there is none, or no longer."""
        with self._changed:
            there, self._offered = self._offered is not None, None
            return there

    def _go_on(self) -> None:
        if self._stopped:
            raise StoppedError

    # By the other side.

    def get(self) -> Item | BaseException:
        """The next item; waits for it."""
        with self._changed:
            # In short waits: a signal that comes just before one does not end it.
            while not self._changed.wait_for(lambda: self._ready or self._offered is not None, _WAIT):
                pass
            if self._ready:
                return self._ready.popleft()
            block, self._offered = self._offered, None
            assert block is not None
            return block

    def release(self, buffer: Buffer) -> None:
        """It has been read."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Prefetcher:
    """Runs `items` in a thread, as far ahead as there are buffers. Close it, whatever happens."""

    def __init__(self, items: Callable[[Ring], Iterator[Item]]) -> None:
        self._ring = Ring()
        # It ends by itself; a daemon only for the case that it waits in somebody's iterator for ever.
        self._thread = threading.Thread(
            target=_run, args=(self._ring, items), name="gemmule-prefetch", daemon=True
        )
        self._thread.start()

    def get(self) -> Item:
        """The next item; waits for it. Raises what the making of it raised."""
        item = self._ring.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def release(self, block: Block) -> None:
        """The block has been read."""
        self._ring.release(block.buffer)

    def close(self) -> None:
        """Ends the thread, at the latest when its iterator gives the next batch."""
        self._ring.stop()
        self._thread.join(_PATIENCE)


def _run(ring: Ring, items: Callable[[Ring], Iterator[Item]]) -> None:
    iterator: Any = items(ring)
    with contextlib.suppress(StoppedError):
        try:
            for item in iterator:
                ring.put(item)
        except StoppedError:
            pass
        except BaseException as error:
            ring.put(error)
        finally:
            iterator.close()
