"""Pictures of training: what is drawn, on which axes, and what is left alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gemmule as gm
from gemmule import plot

pytest.importorskip("matplotlib")
CURVES = {
    "loss": [2.0, 1.0, 0.5],
    "accuracy": [0.3, 0.6, 0.8],
    "val_loss": [2.1, 1.2, 0.9],
    "val_accuracy": [0.2, 0.5, 0.7],
}


def test_history_draws_every_curve_on_the_axes_given() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert plot.history(CURVES, ax) is ax
    left, right = figure.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in left.get_lines()]
    assert drawn == [CURVES["loss"], CURVES["val_loss"]]
    assert [line.get_label() for line in right.get_lines()] == ["accuracy", "accuracy, held out"]
    assert np.asarray(left.get_lines()[0].get_xdata()).tolist() == [1, 2, 3]
    alone = plot.history({"loss": [1.0]}, Figure().add_subplot())
    assert alone.figure.axes == [alone]


def test_history_makes_axes_of_its_own_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("show was called"))
    before = pyplot.get_fignums()
    plot.history(CURVES)
    (made,) = set(pyplot.get_fignums()) - set(before)
    pyplot.close(made)


def test_saving_leaves_pyplot_alone_and_importing_matplotlib(tmp_path: Path) -> None:
    program = (
        "import sys; from gemmule import plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot.save_history({'loss': [2, 1], 'accuracy': [.5, .6]}, sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    for suffix in ("png", "svg"):
        path = tmp_path / f"curves.{suffix}"
        subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
        assert path.stat().st_size > 3000


def test_unknown_suffix_and_missing_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=r"\.png"):
            plot.save_history(CURVES, tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plot.history, lambda curves: plot.save_history(curves, tmp_path / "a.png")):
        with pytest.raises(ImportError, match=r"pip install 'gemmule\[plot\]'"):
            draw(CURVES)


def test_filters_are_drawn_side_by_side() -> None:
    from matplotlib.figure import Figure

    weight = np.arange(5 * 2 * 3).reshape(5, 2, 3, 1).astype(float)
    ax = Figure().add_subplot()
    assert plot.filters(weight, ax) is ax
    (image,) = ax.get_images()
    mosaic = np.ma.filled(image.get_array(), np.nan)
    assert mosaic.shape == (2 * 3 - 1, 3 * 4 - 1)
    np.testing.assert_allclose(mosaic[:2, :3], weight[0, :, :, 0] / 29)
    np.testing.assert_allclose(mosaic[3:5, 4:7], weight[4, :, :, 0] / 29)
    assert np.isnan(mosaic[2]).all() and np.isnan(mosaic[:, 3]).all() and np.isnan(mosaic[3:, 8:]).all()
    colours = Figure().add_subplot()
    plot.filters(np.random.default_rng(0).standard_normal((4, 3, 3, 3)), colours)
    assert np.shape(colours.get_images()[0].get_array()) == (7, 7, 3)
    constant = Figure().add_subplot()
    plot.filters(np.ones((1, 3, 3, 2)), constant)
    assert np.shape(constant.get_images()[0].get_array()) == (3, 3)
    with pytest.raises(gm.ShapeError, match="filters: weight has shape"):
        plot.filters(np.ones((3, 3)), constant)
