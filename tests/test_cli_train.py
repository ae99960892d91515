"""`gemmule train` on arrays: what it prints, trains and writes. Bad input is in test_cli.py."""

import csv
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, accuracy, refused, run
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
SMALL = ["--hidden", "32", "--epochs", "5"]


def test_digits_reach_97_percent(capsys: Capture) -> None:
    """The main job: mean of five seeds on the held-out fifth, with the defaults."""
    scores = []
    for seed in range(5):
        out, _ = run(capsys, "train", "digits", "--quiet", "--seed", str(seed))
        assert "(359 rows)" in out
        scores.append(accuracy(out))
    assert np.mean(scores) >= 97, scores


def test_train_shows_what_it_does(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    out, _ = run(capsys, "train", "digits", *SMALL, "--out", str(path))
    assert "1438 rows to train on, 359 held out" in out
    assert "Dense" in out
    assert re.findall(r"^epoch (\d)/5", out, re.M) == ["1", "2", "3", "4", "5"]
    assert re.search(r"val_accuracy 0\.\d+", out)
    assert re.search(r"5 epochs in [\d.]+ s, [\d,]+ samples/s", out)
    assert f"gemmule evaluate {path} digits" in out
    assert path.stat().st_size > 9_000


def test_many_epochs_take_few_lines(capsys: Capture) -> None:
    out, _ = run(capsys, "train", "digits", "--hidden", "none", "--epochs", "33")
    shown = re.findall(r"^epoch +(\d+)/33", out, re.M)
    assert len(shown) <= 10
    assert shown[-1] == "33"


def test_quiet_prints_the_result_alone(capsys: Capture) -> None:
    out, err = run(capsys, "train", "digits", *SMALL, "--quiet")
    assert err == ""
    assert out.count("\n") == 1


def test_the_same_seed_gives_the_same_file(capsys: Capture, tmp_path: Path) -> None:
    weights = []
    for name, seed in [("a", "3"), ("b", "3"), ("c", "4")]:
        path = tmp_path / name
        run(capsys, "train", "digits", *SMALL, "--dropout", "0.2", "--seed", seed, "--out", str(path))
        weights.append(path.read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_every_optimizer_learns_with_its_default_rate(
    capsys: Capture, optimizer: str, activation: str
) -> None:
    out, _ = run(
        capsys,
        *["train", "digits", "--hidden", "64", "--epochs", "10", "--quiet"],
        *["--optimizer", optimizer, "--activation", activation],
    )
    assert accuracy(out) > 90


def test_plot_is_written(capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curves.png"
    out, _ = run(capsys, "train", "digits", *SMALL, "--plot", str(path))
    assert f"wrote {path}" in out
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_mnist_holds_out_its_test_files(capsys: Capture, tmp_path: Path, shared_data: Path) -> None:
    folder, path = str(shared_data / "mnist"), str(tmp_path / "m.safetensors")
    out, _ = run(
        capsys, "train", "mnist", "--data-dir", folder, "--hidden", "32", "--epochs", "1", "--out", path
    )
    assert "60000 rows to train on, 10000 held out" in out
    assert accuracy(out) > 90
    scored, _ = run(capsys, "evaluate", path, "mnist", "--data-dir", folder)
    assert accuracy(scored) == accuracy(out)
    assert "10000 rows" in scored


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_mnist_reaches_98_3_percent(capsys: Capture, shared_data: Path, precision: str) -> None:
    """The recipe of docs/training.md."""
    recipe = "--hidden 512,256 --dropout 0.25 --schedule one-cycle --lr 0.002 --epochs 6 --batch-size 128"
    argv = ["train", "mnist", "--data-dir", str(shared_data / "mnist"), *recipe.split()]
    out, _ = run(capsys, *argv, "--precision", precision)
    assert accuracy(out) >= 98.3


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_schedules_are_those_of_python(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    rates: list[Any] = []
    adam = gm.Adam
    monkeypatch.setattr(gm, "Adam", lambda lr: (rates.append(lr), adam(lr))[1])
    run(capsys, "train", "digits", *SMALL, "--lr", "0.01", "--schedule", schedule)
    want = {"constant": 0.01, "cosine": gm.schedules.Cosine(0.01), "one-cycle": gm.schedules.OneCycle(0.01)}
    assert rates == [want[schedule]]
    refused(capsys, "train", "digits", "--schedule", "sideways", status=2, match="sideways")


def test_precision_is_that_of_fit(capsys: Capture, tmp_path: Path) -> None:
    models = {}
    for precision in ("full", "bf16"):
        path, again = tmp_path / precision, tmp_path / "again"
        out, _ = run(capsys, "train", "digits", *SMALL, "--precision", precision, "--out", str(path))
        assert accuracy(out) > 85
        models[precision] = path.read_bytes()
        run(capsys, "train", "digits", *SMALL, "--precision", precision, "--out", str(again))
        assert again.read_bytes() == models[precision]
    assert models["full"] != models["bf16"]
    run(capsys, "train", "digits", *SMALL, "--out", str(tmp_path / "default"))
    assert (tmp_path / "default").read_bytes() == models["full"]
    refused(capsys, "train", "digits", "--precision", "half", status=2, match="half")


def test_digits_with_early_stopping_checkpoints_and_a_picture(capsys: Capture, tmp_path: Path) -> None:
    """All of it in one command; interrupted and resumed it ends with the same model."""
    pytest.importorskip("matplotlib")
    whole, parts, checkpoint, picture = (tmp_path / name for name in ("w", "p", "c", "curves.png"))
    argv = ["train", "digits", "--hidden", "32", "--lr", "0.02", "--early-stopping", "3"]
    argv += ["--plot", str(picture), "--checkpoint", str(checkpoint), "--epochs"]
    out, _ = run(capsys, *argv, "200", "--out", str(whole))
    stopped = re.search(r"^stopped after epoch (\d+); the weights are those of epoch (\d+)$", out, re.M)
    assert stopped and int(stopped[1]) == int(stopped[2]) + 3 < 200
    assert accuracy(out) > 95
    assert picture.read_bytes()[:4] == b"\x89PNG" and checkpoint.stat().st_size > 0
    run(capsys, *argv, "2", "--out", str(parts))
    resumed, _ = run(capsys, *argv, "200", "--resume", str(checkpoint), "--out", str(parts))
    assert stopped[0] in resumed
    assert whole.read_bytes() == parts.read_bytes()


def write_points(path: Path) -> tuple[Array, Array]:
    """Three named clouds of points, far from mean 0 and deviation 1."""
    rng = np.random.default_rng(0)
    names = np.array(["north", "east", "west"])
    y = rng.integers(0, 3, 240)
    X = np.array([[0.0, 200.0, 7.0], [100.0, 0.0, 7.0], [-100.0, 0.0, 7.0]])[y] + 5000
    X[:, :2] += 20 * rng.normal(size=(240, 2))
    np.savez(path, X=X, y=names[y])
    return X, names[y]


def test_hinge_classifies_without_probabilities(capsys: Capture, tmp_path: Path) -> None:
    data, path = tmp_path / "points.npz", tmp_path / "m.safetensors"
    write_points(data)
    out, _ = run(capsys, "train", str(data), "--hidden", "8", "--loss", "hinge", "--out", str(path))
    assert accuracy(out) > 97
    assert accuracy(run(capsys, "evaluate", str(path), str(data))[0]) == accuracy(out)
    assert "north" in run(capsys, "predict", str(path), str(data))[0]
    _, error = run(capsys, "predict", str(path), str(data), "--proba", status=2)
    assert "trained with hinge, which gives no probabilities" in error


def test_huber_fits_numbers(capsys: Capture, tmp_path: Path) -> None:
    data = tmp_path / "numbers.npz"
    X = np.random.default_rng(0).normal(size=(200, 3))
    np.savez(data, X=X, y=X[:, :1] * 2)
    out, _ = run(capsys, "train", str(data), "--hidden", "8", "--loss", "huber", "--lr", "0.01")
    assert float(out.split("R2 ")[1].split()[0]) > 0.9


def test_npz_with_names_and_unscaled_columns(capsys: Capture, tmp_path: Path) -> None:
    data, path = tmp_path / "points.npz", tmp_path / "m.safetensors"
    X, y = write_points(data)
    out, _ = run(capsys, "train", str(data), "--hidden", "8", "--out", str(path))
    assert accuracy(out) > 97
    np.save(tmp_path / "new.npy", X[:50])
    out, _ = run(capsys, "predict", str(path), str(tmp_path / "new.npy"))
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["row"] for row in rows[:3]] == ["0", "1", "2"]
    assert np.mean(np.array([row["label"] for row in rows]) == y[:50]) > 0.97
    assert "classes: east, north, west" in run(capsys, "info", str(path))[0]


def test_regression_is_reported_in_the_units_of_the_data(capsys: Capture, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    y = 1e5 + 1e4 * (X @ [1, -2, 0.5] + 0.05 * rng.normal(size=500))
    data, path = tmp_path / "r.npz", tmp_path / "m.safetensors"
    np.savez(data, X=X, y=y)
    out, _ = run(capsys, "train", str(data), "--out", str(path))
    found = re.search(r"squared error ([\d.]+), R2 (0\.\d+)", out)
    assert found, out
    assert 400 < float(found[1]) < 4000
    assert float(found[2]) > 0.97
    scored, _ = run(capsys, "evaluate", str(path), str(data))
    assert found[0] in scored
    run(capsys, "predict", str(path), str(data), "--out", str(tmp_path / "p.npy"))
    assert np.corrcoef(np.load(tmp_path / "p.npy")[:, 0], y)[0, 1] > 0.98


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_keeps_and_writes_the_last_complete_step(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    # The child sets the handler itself: one started from a background job would ignore the signal.
    program = (
        "import signal, sys; from gemmule import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(cli.main(sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "train", "digits", "--epochs", "1000000", "--out", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert re.fullmatch(
        r"gemmule: interrupted after epoch \d+ of 1000000; the last complete step is kept\n", err
    )
    net = gm.load(path)
    assert all(np.isfinite(p).all() for _, p in net.named_parameters())
