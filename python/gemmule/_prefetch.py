"""A thread that makes blocks of data while others are trained on."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .arrays import Array

BUFFERS = 2  # one is trained on, one is filled
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
    """What the thread knows of the one who waits for it."""

    def __init__(self) -> None:
        self.hungry = False  # somebody waits
        self.stopped = False
        self.ready: queue.SimpleQueue[Item | BaseException] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self.free.put(None)  # not made yet

    def take(self, make: Callable[[], Buffer]) -> Buffer:
        """A buffer that nobody reads; waits for one."""
        buffer = self.free.get()
        if self.stopped:
            raise StoppedError
        return make() if buffer is None else buffer


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
        self._ring.hungry = True
        item = self._ring.ready.get()
        self._ring.hungry = False
        if isinstance(item, BaseException):
            raise item
        return item

    def release(self, block: Block) -> None:
        """The block has been read."""
        self._ring.free.put(block.buffer)

    def close(self) -> None:
        """Ends the thread, at the latest when its iterator gives the next batch."""
        self._ring.stopped = True
        self._ring.free.put(None)
        self._thread.join(_PATIENCE)


def _run(ring: Ring, items: Callable[[Ring], Iterator[Item]]) -> None:
    iterator: Any = items(ring)
    try:
        for item in iterator:
            if ring.stopped:
                return
            ring.ready.put(item)
    except StoppedError:
        pass
    except BaseException as error:
        ring.ready.put(error)
    finally:
        iterator.close()
