"""One turn of one contender on one task."""

import math
import statistics
import time
import timeit
from collections.abc import Callable
from typing import TypedDict

# Calls shorter than this are timed many at a time: reading the clock takes some 0.1 us.
BATCH_SECONDS = 1e-3


class Sample(TypedDict):
    """Seconds per call, fastest and median of the turn's calls, and how many those were."""

    best: float
    median: float
    calls: int


class CeilingSample(TypedDict):
    """What the FMA chains reached in the turn."""

    flops_per_second: float


Turn = Callable[[float], Sample | CeilingSample]


def timed(call: Callable[[], float]) -> Turn:
    """A turn that repeats `call` until its seconds are used up, at least once.

    `call` returns a figure that shows it did its work, a loss for instance; it must be finite.
    """

    def play(seconds: float) -> Sample:
        times: list[float] = []
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            if not math.isfinite(result):
                raise ArithmeticError(f"result is {result}")
        return Sample(best=min(times), median=statistics.median(times), calls=len(times))

    return play


def repeated(statement: str, **names: object) -> Turn:
    """A turn that times `statement`, in which `names` are known, in loops of at least a millisecond.

    The statement is compiled into the loop, as `timeit` does it: a Python function around it would cost as
    much as the smallest products. The length of the loop is found here, which warms up as well.
    """
    timer = timeit.Timer(statement, globals=dict(names))
    calls = 1
    while timer.timeit(calls) < BATCH_SECONDS:
        calls *= 2

    def play(seconds: float) -> Sample:
        times: list[float] = []
        while not times or calls * sum(times) < seconds:
            times.append(timer.timeit(calls) / calls)
        return Sample(best=min(times), median=statistics.median(times), calls=calls * len(times))

    return play
