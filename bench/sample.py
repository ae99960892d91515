"""One round of one contender."""

import math
import statistics
import time
from collections.abc import Callable
from typing import TypedDict


class Sample(TypedDict):
    """Seconds per call, fastest and median of the round's calls, and how many those were."""

    best: float
    median: float
    calls: int


class CeilingSample(TypedDict):
    """What the FMA chains reached in the round."""

    flops_per_second: float


Round = Callable[[float], Sample | CeilingSample]


def timed(call: Callable[[], float]) -> Round:
    """A round that repeats `call` until its seconds are used up, at least once.

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
