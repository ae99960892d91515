"""Outcomes as a table, as JSON and as a picture."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .harness import CEILING, Outcome
from .tasks import to_json

Unit = Literal["GFLOP/s", "ms"]


def in_unit(outcome: Outcome, flops_per_second: float | None, unit: Unit) -> float | None:
    """A speed as the table shows it: a rate, or the time this case takes at that rate."""
    if flops_per_second is None:
        return None
    return flops_per_second / 1e9 if unit == "GFLOP/s" else outcome.case.task.flops / flops_per_second * 1e3


def print_machine(machine: Mapping[str, str]) -> None:
    """One line per property."""
    for name, value in machine.items():
        print(f"{name + ':':<19} {value}")


def print_table(
    outcomes: Iterable[Outcome], names: Sequence[str], labels: Sequence[str], unit: Unit
) -> list[Outcome]:
    """Print a row as each outcome arrives, then versions and who was skipped; return the outcomes.

    `names`: the cases to come, for the width of the first column. `labels`: the contenders' columns.
    """
    first = max(map(len, names))
    widths = [max(len(label), 9) for label in labels]
    columns = "  ".join(f"{label:>{width}}" for label, width in zip(labels, widths, strict=True))
    limit = "ceiling" if unit == "GFLOP/s" else "limit"
    print(f"\n{'[' + unit + ']':<{first}}  {columns}  {limit:>9}  of ceiling  vs best peer", flush=True)
    seen = []
    for outcome in outcomes:
        seen.append(outcome)
        cells = [_number(in_unit(outcome, outcome.rate(label), unit)) for label in labels]
        columns = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        ceiling = _number(in_unit(outcome, outcome.ceiling, unit))
        share = "-" if outcome.share is None else f"{100 * outcome.share:.1f} %"
        ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.2f} x {outcome.best_peer}"
        print(f"{outcome.case.name:<{first}}  {columns}  {ceiling:>9}  {share:>10}  {ratio}", flush=True)
    print()
    for line in _footnotes(seen):
        print(line)
    return seen


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _footnotes(outcomes: Iterable[Outcome]) -> list[str]:
    """Versions and reasons, each once, in the order met."""
    lines: dict[str, None] = {}
    for outcome in outcomes:
        lines.update(dict.fromkeys(f"{label}: {version}" for label, version in outcome.versions.items()))
        lines.update(dict.fromkeys(f"skipped {label}: {reason}" for label, reason in outcome.skipped.items()))
    return list(lines)


def write_json(path: Path, machine: Mapping[str, str], outcomes: Iterable[Outcome]) -> None:
    """Everything measured, every round of it."""
    cases: list[dict[str, Any]] = [
        {
            "group": outcome.case.group,
            "label": outcome.case.label,
            "task": to_json(outcome.case.task),
            "flops": outcome.case.task.flops,
            "statistic": outcome.case.statistic,
            "rounds": outcome.samples,
            "seconds": {label: outcome.seconds(label) for label in outcome.samples},
            "ceiling_rounds": outcome.ceiling_rounds,
            "ceiling": outcome.ceiling,
            "share_of_ceiling": outcome.share,
            "best_peer": outcome.best_peer,
            "ratio_to_best_peer": outcome.ratio,
            "versions": outcome.versions,
            "skipped": outcome.skipped,
        }
        for outcome in outcomes
    ]
    path.write_text(json.dumps({"machine": dict(machine), "cases": cases}, indent=1) + "\n")


def plot(
    path: Path, machine: Mapping[str, str], outcomes: Sequence[Outcome], labels: Sequence[str], unit: Unit
) -> None:
    """A panel of bars per group, the ceiling as a black line over each case. Needs matplotlib."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(outcome.case.group for outcome in outcomes))
    rows = (len(groups) + 1) // 2
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, min(2, len(groups)), squeeze=False).ravel()
    present = [label for label in labels if any(label in outcome.samples for outcome in outcomes)]
    width = 0.8 / max(1, len(present))
    for panel, group in zip(panels, groups, strict=False):
        members = [outcome for outcome in outcomes if outcome.case.group == group]
        for index, label in enumerate(present):
            heights = [in_unit(outcome, outcome.rate(label), unit) or 0.0 for outcome in members]
            places = [place - 0.4 + (index + 0.5) * width for place in range(len(members))]
            panel.bar(places, heights, width, label=label)
        for place, outcome in enumerate(members):
            limit = in_unit(outcome, outcome.ceiling, unit)
            if limit is not None:
                legend = None if place else CEILING.label
                panel.hlines(limit, place - 0.45, place + 0.45, color="black", label=legend)
        panel.set(title=group, ylabel=unit, xticks=range(len(members)))
        panel.set_xticklabels([outcome.case.label for outcome in members])
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(present) + 1)
    figure.suptitle(f"{machine['cpu']}, {machine['usable cores']} cores, {machine['date'][:10]}")
    figure.savefig(path, dpi=150)
