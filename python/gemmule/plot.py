"""Pictures of training and of filters. matplotlib is imported when a function here is called, and `show` is
left to the caller."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, any_array
from .errors import ShapeError

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


def filters(weight: ArrayLike, ax: "Axes | None" = None) -> "Axes":
    """The filters of a convolution, weight (n_out, k_h, k_w, n_in / groups), as a grid of small pictures: of
    three channels in colour, else the mean over the channels in grey, black least and white most.

    Draws on `ax`, or on new axes, and returns them. ShapeError for another shape, ImportError where
    matplotlib is missing."""
    _require_matplotlib()
    mosaic = _mosaic(any_array(weight, "filters: weight"))
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure().add_subplot()
    ax.imshow(mosaic, cmap="gray", interpolation="nearest")
    ax.set_axis_off()
    return ax


def _mosaic(weight: Array) -> Array:
    """(rows, columns) or (rows, columns, 3) in 0..1, NaN between the filters."""
    if weight.ndim != 4 or weight.size == 0:
        raise ShapeError(f"filters: weight has shape {weight.shape}; it must be (n_out, k_h, k_w, n_in)")
    pictures = weight.astype(np.float64)
    if weight.shape[3] != 3:
        pictures = pictures.mean(axis=3, keepdims=True)
    low, high = pictures.min(), pictures.max()
    pictures = (pictures - low) / (high - low or 1)
    count, height, width, channels = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    gap = np.nan if channels == 1 else 1.0  # NaN is left out of grey pictures, and colours have none
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), gap)
    for index, picture in enumerate(pictures):
        row, column = index // columns * (height + 1), index % columns * (width + 1)
        mosaic[row : row + height, column : column + width] = picture
    return mosaic[..., 0] if channels == 1 else mosaic


def save_history(history: Curves, path: str | os.PathLike[str], weight: ArrayLike | None = None) -> None:
    """Write a picture with one panel for the loss, one per metric, and one for the `filters` of a weight
    where there is one; the suffix of `path` chooses the format.

    Leaves pyplot, its backend and its open figures alone. ValueError for an unknown suffix."""
    check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ["loss", *_metrics(history)]
    panels = len(names) + (weight is not None)
    figure = Figure(figsize=(4.5 * panels, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        ax = figure.add_subplot(1, panels, index + 1)
        _draw(ax, history, name, f"C{index}")
        ax.set_ylabel(name)
        ax.legend()
    if weight is not None:
        filters(weight, figure.add_subplot(1, panels, panels)).set_title("filters of the first layer")
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
