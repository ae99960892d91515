"""One turn of one contender on one task."""

import math
import statistics
import time
import timeit
from collections.abc import Callable, Mapping
from typing import NotRequired, TypedDict

# Calls shorter than this are timed many at a time: reading the clock takes some 0.1 us.
BATCH_SECONDS = 1e-3

# So many of a contender's first losses are kept, to be compared with the others' after as many calls.
KEPT_LOSSES = 8


class Sample(TypedDict):
    """Seconds per call, fastest and median of the turn's calls, and how many those were. Of trainings, the
    losses of the first calls, warm-up and earlier turns included. Which of its variants a contender chose."""

    best: float
    median: float
    calls: int
    losses: NotRequired[list[float]]
    variant: NotRequired[str]


class CeilingSample(TypedDict):
    """What the FMA chains reached in the turn."""

    flops_per_second: float


Turn = Callable[[float], Sample]
CeilingTurn = Callable[[float], CeilingSample]


def timed(call: Callable[[], float], variant: str | None = None, kept: int = KEPT_LOSSES) -> Turn:
    """A turn that repeats `call` until its seconds are used up, at least once. It is called here once, which
    warms up.

    `call` goes on with a training and returns its loss, which shows that it did its work; the first `kept`
    can be compared with others'. ArithmeticError where one is not finite.
    """
    losses = [_finite(call())]

    def play(seconds: float) -> Sample:
        times: list[float] = []
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            _finite(result)
            if len(losses) < kept:
                losses.append(result)
        sample = Sample(best=min(times), median=statistics.median(times), calls=len(times), losses=[*losses])
        return _with_variant(sample, variant)

    return play


def repeated(statement: str, variant: str | None = None, **names: object) -> Turn:
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
        sample = Sample(best=min(times), median=statistics.median(times), calls=calls * len(times))
        return _with_variant(sample, variant)

    return play


def fastest(turns: Mapping[str, Callable[[], Turn]], seconds: float = 0.1) -> str:
    """The name of the variant whose turn is the fastest. They are made, played twice and let go one after
    another; one that fails is out, and where all do, the last one's exception is raised."""
    times: dict[str, float] = {}
    failure: Exception | None = None
    for name, make in turns.items():
        try:
            turn = make()
            samples = [turn(seconds), turn(seconds)]
        except Exception as error:
            failure = error
        else:
            times[name] = min(sample["best"] for sample in samples)
    if not times and failure is not None:
        raise failure
    return min(times, key=times.__getitem__)


def _finite(result: float) -> float:
    if not math.isfinite(result):
        raise ArithmeticError(f"result is {result}")
    return result


def _with_variant(sample: Sample, variant: str | None) -> Sample:
    if variant is not None:
        sample["variant"] = variant
    return sample
