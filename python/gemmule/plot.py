"""Pictures of training. matplotlib is imported when a function here is called, and `show` is left to the
caller."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, Sequence[float]]


def history(history: Curves, ax: "Axes | None" = None) -> "Axes":
    """Loss over epochs on the left axis, metrics such as accuracy on the right; dashed where measured on
    held-out rows.

    `history` maps names to one value per epoch, `val_` before those of held-out rows. Draws on `ax`, or on
    new axes, and returns the left one. ImportError where matplotlib is missing."""
    _require_matplotlib()
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure().add_subplot()
    _draw(ax, history, "loss", "C0")
    metrics = _metrics(history)
    if metrics:
        right = ax.twinx()
        for index, name in enumerate(metrics, start=1):
            _draw(right, history, name, f"C{index}")
        right.set_ylabel(", ".join(metrics))
        lines = [*ax.get_lines(), *right.get_lines()]
        ax.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    else:
        ax.legend()
    ax.set_ylabel("loss")
    return ax


def save_history(history: Curves, path: str | os.PathLike[str]) -> None:
    """Write a picture with one panel for the loss and one per metric; the suffix of `path` chooses the
    format.

    Leaves pyplot, its backend and its open figures alone. ValueError for an unknown suffix."""
    check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ["loss", *_metrics(history)]
    figure = Figure(figsize=(4.5 * len(names), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        ax = figure.add_subplot(1, len(names), index + 1)
        _draw(ax, history, name, f"C{index}")
        ax.set_ylabel(name)
        ax.legend()
    figure.savefig(path, dpi=150)


def check_path(path: str | os.PathLike[str]) -> None:
    """ValueError where matplotlib cannot write a file of that name, ImportError where matplotlib is
    missing."""
    _require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    suffix = Path(path).suffix[1:].lower()
    if suffix not in known:
        raise ValueError(f"plot: {os.fspath(path)!r} ends in none of .{', .'.join(sorted(known))}")


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'gemmule[plot]'") from error


def _metrics(history: Curves) -> list[str]:
    return [name for name in history if name != "loss" and not name.startswith("val_") and len(history[name])]


def _draw(ax: "Axes", history: Curves, name: str, color: str) -> None:
    for key, label, style in [(name, name, "-"), (f"val_{name}", f"{name}, held out", "--")]:
        if key in history:
            values = history[key]
            ax.plot(range(1, len(values) + 1), values, style, color=color, label=label)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.3)
