"""What is printed: the machine, a row per case, versions."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from .cnn_tasks import CnnTask
from .outcome import OURS, Case, Outcome, count_threads
from .results import Results, Unit
from .tasks import Gemm


def in_unit(outcome: Outcome, flops_per_second: float | None, unit: Unit) -> float | None:
    """A speed as the table shows it: a rate, the images per second, or the time this case takes at that
    rate."""
    if flops_per_second is None:
        return None
    if unit == "images/s":
        task = outcome.case.task
        assert isinstance(task, CnnTask)
        return task.images / task.flops * flops_per_second
    return flops_per_second / 1e9 if unit == "GFLOP/s" else outcome.case.task.flops / flops_per_second * 1e3


def print_head(results: Results) -> None:
    """The machine, a line per property, and its ceilings."""
    for name, value in results.machine.items():
        print(f"{name + ':':<19} {value}")
    print("FMA ceilings, in GFLOP/s:")
    for name, rate in results.ceilings.items():
        print(f"  {name:<28} {rate / 1e9:7.1f}")


def print_table(
    outcomes: Iterable[Outcome], cases: Sequence[Case], labels: Sequence[str], unit: Unit
) -> list[Outcome]:
    """Print a row as each outcome arrives; return the outcomes.

    `cases`: those to come, for the width of the first column. `labels`: the contenders' columns.
    """
    first = max(len(case.name) for case in cases)
    widths = [max(len(label), 9) for label in labels]
    columns = "  ".join(f"{label:>{width}}" for label, width in zip(labels, widths, strict=True))
    limit = "limit" if unit == "ms" else "ceiling"
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
    return seen


def print_memory(results: Results) -> None:
    """A row per case whose peaks were measured."""
    measured = [outcome for outcome in results.outcomes if outcome.memory]
    rows = {
        outcome.case.name: {label: bytes / 1e6 for label, bytes in outcome.memory.items()}
        for outcome in measured
    }
    _print_grid("[MB] peak above Python with NumPy and the data", rows, results.labels)


def print_shares(results: Results) -> None:
    """gemmule's time over each contender's, per case of layers, training and inference, and each set's
    geometric mean."""
    sets: dict[str, dict[str, dict[str, float]]] = {}
    for outcome in results.outcomes:
        if isinstance(outcome.case.task, Gemm):
            continue
        shares = {label: outcome.share_of(label) for label in outcome.samples if label != OURS}
        known = {label: share for label, share in shares.items() if share is not None}
        if known:
            group = f"{outcome.case.shape_set}, {count_threads(outcome.case.task.threads)}"
            sets.setdefault(group, {})[outcome.case.name] = known
    for group, rows in sets.items():
        if len(rows) > 1:
            means = {
                label: math.exp(
                    statistics.fmean(math.log(row[label]) for row in rows.values() if label in row)
                )
                for label in results.labels
                if any(label in row for row in rows.values())
            }
            rows["geometric mean"] = means
        _print_grid(f"gemmule's time over theirs: {group}", rows, results.labels)


def _print_grid(title: str, rows: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> None:
    """A column per label that any row has; nothing without rows."""
    if not rows:
        return
    present = [label for label in labels if any(label in row for row in rows.values())]
    first = max(len(title), *map(len, rows))
    print(f"\n{title:<{first}}  {'  '.join(f'{label:>9}' for label in present)}")
    for name, row in rows.items():
        cells = (f"{_number(row.get(label)):>{max(len(label), 9)}}" for label in present)
        print(f"{name:<{first}}  {'  '.join(cells)}")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def print_versions(outcomes: Iterable[Outcome]) -> None:
    """Who ran, and who did not for which reason, each once, in the order met."""
    lines: dict[str, None] = {}
    for outcome in outcomes:
        lines.update(_each(outcome.versions))
        lines.update(
            _each({f"{label}, {outcome.case.name}": text for label, text in outcome.variants.items()})
        )
        lines.update(_each({f"skipped {label}": reason for label, reason in outcome.skipped.items()}))
    print()
    for line in lines:
        print(line)


def _each(texts: Mapping[str, str]) -> dict[str, None]:
    return dict.fromkeys(f"{label}: {text}" for label, text in texts.items())
