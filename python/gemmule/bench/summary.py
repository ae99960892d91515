"""Ratios to the best peer over many shapes, in a few figures."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .layer_tasks import Conv
from .outcome import OURS_STRICT, Case, Outcome, count_threads
from .tasks import CNN_SETS, DIRECTIONS, LAYER_SETS, Gemm, Infer, Train

# So few multiply-adds take about as long as the call of a Python function, whose cost differs by library:
# they are a class of their own.
SMALL = (4_096, 20_000)

_NARROW = "square, 32 to 128"
_BOTH = "square and dense"
_SMALL = f"  of {SMALL[0]:,} to {SMALL[1]:,} multiply-adds"
_OTHERS = "  of fewer or more"
_STRICT = "no transforms"
_LAYERS = [f"{name} {direction}" for name in LAYER_SETS for direction in DIRECTIONS]
_ORDER = (
    *("square", _NARROW, "dense", _BOTH, _SMALL, _OTHERS, "skinny", "f64"),
    *(name + end for name in _LAYERS for end in ("", f", {_STRICT}")),
    *(f"cnn {name}" for name in CNN_SETS),
)


@dataclass(frozen=True)
class Ratios:
    """gemmule's speed over the best peer's on `shapes` cases of a group of a run."""

    group: str  # type and threads
    name: str
    shapes: int
    geometric_mean: float
    fifth_percentile: float  # interpolated linearly
    minimum: float
    worst: str  # the case that has the minimum

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def condense(group: str, name: str, ratios: Mapping[str, float]) -> Ratios:
    """The figures of `ratios`, by name of the case, at least one."""
    values = np.array(list(ratios.values()))
    return Ratios(
        group,
        name,
        len(values),
        float(np.exp(np.log(values).mean())),
        float(np.percentile(values, 5)),
        float(values.min()),
        min(ratios, key=ratios.__getitem__),
    )


def summarize(outcomes: Iterable[Outcome]) -> list[Ratios]:
    """Per type and threads, over each of the classes of shapes that is there. What no peer ran is left
    out."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for outcome in outcomes:
        task = outcome.case.task
        for name, ratio in _ratios(outcome):
            classes = groups.setdefault(f"{task.dtype}, {count_threads(task.threads)}", {})
            classes.setdefault(name, {})[f"{outcome.case.shape_set} {outcome.case.label}"] = ratio
    for classes in groups.values():
        if not {"square", "dense"} <= classes.keys():
            classes.pop(_BOTH, None)  # it would repeat the one that is there
    return [
        condense(group, name, classes[name])
        for group, classes in groups.items()
        for name in sorted(classes, key=_ORDER.index)
    ]


def worst(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The twentieth of each group with the lowest ratios, at least one, in the order measured: what decides
    the 5th percentile and the minimum, and is worth another look."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.ratio is not None:
            groups.setdefault(outcome.case.group, []).append(outcome)
    chosen = []
    for members in groups.values():
        count = -(-len(members) // 20)
        limit = sorted(outcome.ratio or 0.0 for outcome in members)[count - 1]
        chosen += [outcome for outcome in members if (outcome.ratio or 0.0) <= limit]
    return chosen


def print_summary(summary: Iterable[Ratios]) -> None:
    """A row each, under a line per type and threads."""
    print(f"\n{'ratio to the best peer':<36}  shapes  geo mean  5th pct  minimum")
    group = ""
    for row in summary:
        if row.group != group:
            group = row.group
            print(group)
        print(
            f"  {row.name:<34}  {row.shapes:>6}  {row.geometric_mean:>8.2f}  {row.fifth_percentile:>7.2f}"
            f"  {row.minimum:>7.2f}  ({row.worst})"
        )


def _ratios(outcome: Outcome) -> list[tuple[str, float]]:
    """The classes of _ORDER that a case belongs to, with its ratio in each that has one."""
    case, ratio = outcome.case, outcome.ratio
    found = [] if ratio is None else [(name, ratio) for name in _classes(case)]
    if case.shape_set and isinstance(case.task, Conv):
        # A case without a contender of that kind is one in which nothing is transformed.
        strict = outcome.strict_ratio if OURS_STRICT in outcome.versions else ratio
        found += [] if strict is None else [(f"{case.shape_set}, {_STRICT}", strict)]
    return found


def _classes(case: Case) -> list[str]:
    """Those of _ORDER that a case belongs to."""
    task = case.task
    if not case.shape_set or isinstance(task, Train | Infer):
        return []
    if not isinstance(task, Gemm):
        return [case.shape_set]
    names = [case.shape_set]
    if case.shape_set == "square" and 32 <= task.m <= 128:
        names.append(_NARROW)
    if case.shape_set in ("square", "dense"):
        names += [_BOTH, _SMALL if SMALL[0] <= task.multiply_adds <= SMALL[1] else _OTHERS]
    return names
