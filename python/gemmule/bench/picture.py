"""Speeds as a picture: bars for a few cases, points for a set of shapes. matplotlib is imported when one is
drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from .harness import CEILING
from .outcome import OURS, Outcome
from .report import in_unit
from .results import Results
from .tasks import Gemm

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_MOST_BARS = 8  # cases in a group; more are drawn as points
_MOST_SPAN = 30  # of heights on a linear scale
_MOST_COLUMNS = 5  # of the legend

# By which of A and B is transposed.
_PRODUCTS = {(False, True): "X W^T", (False, False): "A B", (True, False): "dZ^T X"}


def save(path: Path, results: Results) -> None:
    """Write a picture with a row or a panel per group, the machine above; the suffix of `path` chooses the
    format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups: dict[str, list[Outcome]] = {}
    for outcome in results.outcomes:
        groups.setdefault(outcome.case.group, []).append(outcome)
    points = max(map(len, groups.values())) > _MOST_BARS
    rows = len(groups) if points else (len(groups) + 1) // 2
    figure = Figure(figsize=(11, 3.4 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    if points:
        for index, (title, members) in enumerate(groups.items()):
            _draw_speeds(panels[2 * index], title, members, results)
            _draw_ratios(panels[2 * index + 1], title, members)
    else:
        for panel, (title, members) in zip(panels, groups.items(), strict=False):
            _draw_bars(panel, title, members, results)
        for panel in panels[len(groups) :]:
            panel.set_axis_off()
    legend: dict[str, Artist] = {}
    for panel in panels[:: 2 if points else 1]:  # the right panels of pairs have their own
        handles, labels = panel.get_legend_handles_labels()
        legend.update(zip(labels, handles, strict=True))
    order = sorted(legend, key=[CEILING.label, *results.labels, *legend].index)
    columns = min(len(order), _MOST_COLUMNS)
    figure.legend([legend[label] for label in order], order, loc="outside lower center", ncols=columns)
    machine = results.machine
    figure.suptitle(f"{machine['cpu']}, {machine['usable cores']} cores, {machine['date'][:10]}")
    figure.savefig(path, dpi=150)


def _draw_bars(panel: "Axes", title: str, members: list[Outcome], results: Results) -> None:
    """A bar per contender and case, the ceiling as a black line over each case."""
    present = _present(members, results)
    width = 0.8 / max(1, len(present))
    all_heights: list[float] = []
    for index, label in enumerate(present):
        heights = [in_unit(outcome, outcome.rate(label), results.unit) or 0.0 for outcome in members]
        places = [place - 0.4 + (index + 0.5) * width for place in range(len(members))]
        panel.bar(places, heights, width, label=label, color=_color(label, results))
        all_heights += [height for height in heights if height]
    for place, outcome in enumerate(members):
        limit = in_unit(outcome, outcome.ceiling, results.unit)
        if limit is not None:
            legend = "_nolegend_" if place else CEILING.label
            panel.hlines(limit, place - 0.45, place + 0.45, color="black", label=legend)
    if all_heights and max(all_heights) > _MOST_SPAN * min(all_heights):
        panel.set_yscale("log")
    panel.set(title=title, ylabel=results.unit, xticks=range(len(members)))
    panel.set_xticklabels([outcome.case.label for outcome in members])


def _draw_speeds(panel: "Axes", title: str, members: list[Outcome], results: Results) -> None:
    """A point per contender and shape over its multiply-adds; a line where the shapes are squares."""
    line = "-" if all(_is_square(outcome) for outcome in members) else ""
    for index, label in enumerate(_present(members, results)):
        ran = sorted((o for o in members if label in o.samples), key=_multiply_adds)
        rates = [(outcome.rate(label) or 0.0) / 1e9 for outcome in ran]
        panel.plot(
            [*map(_multiply_adds, ran)], rates, f"o{line}", ms=3, lw=1, alpha=0.7,
            label=label, color=_color(label, results), zorder=3 - 0.1 * index,  # gemmule on top
        )  # fmt: skip
    limits = [outcome.ceiling / 1e9 for outcome in members if outcome.ceiling is not None]
    if limits:
        panel.axhline(sorted(limits)[len(limits) // 2], color="black", lw=1, label=CEILING.label)
    panel.set(title=title, xlabel="multiply-adds", ylabel="GFLOP/s", xscale="log", yscale="log")
    panel.grid(alpha=0.3)


def _draw_ratios(panel: "Axes", title: str, members: list[Outcome]) -> None:
    """gemmule's speed over the best peer's, a point per shape; the lowest is named."""
    from matplotlib.ticker import StrMethodFormatter

    found = [(outcome.ratio, outcome) for outcome in members if outcome.ratio is not None]
    panel.set(title=f"{title}: ratio to the best peer", xlabel="multiply-adds", xscale="log")
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.margins(x=0.1)
    panel.axhline(1, color="black", lw=1)
    panel.grid(alpha=0.3)
    products = [product for product in _PRODUCTS.values() if any(_product(o) == product for _, o in found)]
    for index, product in enumerate(products):
        points = [
            (_multiply_adds(outcome), ratio) for ratio, outcome in found if _product(outcome) == product
        ]
        panel.plot(*zip(*points, strict=True), "o", ms=3, label=product, color=f"C{index}")
    if len(products) > 1:
        panel.legend(fontsize=8)
    if found:
        ratio, lowest = min(found, key=lambda pair: pair[0])
        panel.set_ylim(min(0.5, 0.7 * ratio), max(2.0, 1.2 * max(ratio for ratio, _ in found)))
        panel.annotate(
            f"{lowest.case.label}: {ratio:.2f}", (_multiply_adds(lowest), ratio),
            xytext=(0, -5), textcoords="offset points", ha="center", va="top", fontsize=8,
        )  # fmt: skip


def _present(members: list[Outcome], results: Results) -> list[str]:
    return [label for label in results.labels if any(label in outcome.samples for outcome in members)]


def _color(label: str, results: Results) -> str:
    """gemmule's is the same in every picture."""
    return "C3" if label == OURS else f"C{(0, 1, 2, 4, 5, 6, 7, 8, 9)[results.labels.index(label) % 9]}"


def _multiply_adds(outcome: Outcome) -> int:
    return outcome.case.task.flops // 2


def _is_square(outcome: Outcome) -> bool:
    task = outcome.case.task
    return isinstance(task, Gemm) and task.m == task.n == task.k


def _product(outcome: Outcome) -> str:
    task = outcome.case.task
    return _PRODUCTS[task.trans_a, task.trans_b] if isinstance(task, Gemm) else ""
