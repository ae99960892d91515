"""The command line: what it prints and writes, its exit status, and what it says to bad input."""

import csv
import pickle
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
from gemmule import _safetensors, cli, datasets

Array = NDArray[Any]
SMALL = ["--hidden", "32", "--epochs", "5"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model of the digits."""
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    assert cli.main(["train", "digits", *SMALL, "--quiet", "--out", str(path)]) == 0
    return str(path)


# -- train ---------------------------------------------------------------------------------------------------


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
def test_mnist_reaches_98_3_percent(capsys: Capture, shared_data: Path) -> None:
    """The recipe of docs/training.md."""
    recipe = "--hidden 512,256 --dropout 0.25 --schedule one-cycle --lr 0.002 --epochs 6 --batch-size 128"
    out, _ = run(capsys, "train", "mnist", "--data-dir", str(shared_data / "mnist"), *recipe.split())
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


# -- evaluate, predict, info ---------------------------------------------------------------------------------


def test_evaluate_finds_the_rows_held_out(capsys: Capture, model: str) -> None:
    out, _ = run(capsys, "evaluate", model, "digits")
    assert "on 359 rows, held out in training" in out
    X, y = datasets.digits()
    _, held = datasets.stratified_split(y, 0.2, 0)
    expected = np.mean(gm.load(model).predict(X[held]).argmax(axis=1) == y[held])
    assert accuracy(out) == pytest.approx(100 * expected, abs=0.006)
    assert "on 1797 rows, all there are" in run(capsys, "evaluate", model, "digits", "--all")[0]


def test_evaluate_on_other_data_scores_all_of_it(capsys: Capture, model: str, tmp_path: Path) -> None:
    X, y = datasets.digits(scale=False)
    np.savez(tmp_path / "part.npz", X=X[:100], y=y[:100])
    out, _ = run(capsys, "evaluate", model, str(tmp_path / "part.npz"))
    assert "on 100 rows, all there are (not the data" in out


def test_predict_prints_and_writes(capsys: Capture, model: str, tmp_path: Path) -> None:
    X, _ = datasets.digits()
    net = gm.load(model)
    labels, probabilities = net.predict(X).argmax(axis=1), net.predict_proba(X)
    out, _ = run(capsys, "predict", model, "digits", "--limit", "7", "--proba")
    rows = list(csv.reader(out.splitlines()))
    assert rows[0] == ["row", "label", *(f"p({digit})" for digit in range(10))]
    assert [int(row[1]) for row in rows[1:]] == labels[:7].tolist()
    np.testing.assert_allclose(np.array(rows[1:])[:, 2:].astype(float), probabilities[:7], atol=1e-5)
    run(capsys, "predict", model, "digits", "--out", str(tmp_path / "p.csv"))
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1798
    run(capsys, "predict", model, "digits", "--proba", "--out", str(tmp_path / "p.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), probabilities, atol=1e-6)


def test_models_saved_from_python(capsys: Capture, tmp_path: Path) -> None:
    X, y = datasets.digits()
    net = gm.Network.mlp([64, 16, 10], rng=0)
    net.fit(X, y, loss="cross_entropy", epochs=5)
    path = str(tmp_path / "m.safetensors")
    net.save(path)
    out, _ = run(capsys, "evaluate", path, "digits")
    assert accuracy(out) == pytest.approx(100 * net.evaluate(X, y)["accuracy"], abs=0.006)
    out, _ = run(capsys, "predict", path, "digits", "--limit", "3")
    assert out.splitlines()[0] == "row,label"
    assert "preprocessing: none stored" in run(capsys, "info", path)[0]


def test_models_of_bytes_saved_from_python(capsys: Capture, tmp_path: Path) -> None:
    """Their scale is applied to bytes, and to nothing else."""
    X, y = datasets.digits(scale=False)
    pixels = (X * 15).astype(np.uint8)
    net = gm.Network.mlp([64, 16, 10], rng=0)
    net.fit(pixels, y, loss="cross_entropy", epochs=5, scale=1 / 240)
    path = str(tmp_path / "m.safetensors")
    net.save(path)
    expected = 100 * net.evaluate(pixels, y)["accuracy"]
    for name, inputs in (("bytes", pixels), ("reals", X / 16)):
        np.savez(tmp_path / f"{name}.npz", X=inputs, y=y)
        out, _ = run(capsys, "evaluate", path, str(tmp_path / f"{name}.npz"))
        assert accuracy(out) == pytest.approx(expected, abs=0.006)
    net.preprocessing["uint8_scale"] = "large"
    net.save(path)
    refused(capsys, "evaluate", path, str(tmp_path / "bytes.npz"), status=1, match="uint8_scale")


def test_info_describes_the_file(capsys: Capture, model: str) -> None:
    out, _ = run(capsys, "info", model)
    assert f"{Path(model).stat().st_size:,} bytes" in out
    assert "Dense" in out
    assert "loss: cross_entropy" in out
    assert "trained from: digits; held out: 20% of the rows, seed 0" in out
    assert "classes: 0, 1, 2" in out


def test_show_config(capsys: Capture) -> None:
    out, _ = run(capsys, "show-config")
    assert gm.__version__ in out


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "info", "show-config"])
def test_help_teaches(capsys: Capture, command: str) -> None:
    out, _ = run(capsys, command, "--help")
    assert command in out
    if command in ("train", "evaluate", "predict"):
        assert "gemmule " + command in out.split("example")[1]
        assert "FILE.npz" in out
    assert command in run(capsys, "--help")[0]


def test_a_reader_that_leaves_is_no_error(model: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "gemmule", "predict", model, "digits", "--proba"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice"),
        (["train"], "DATA"),
        (["train", "digits", "--epochs", "0"], "'0': expected an integer of at least 1"),
        (["train", "digits", "--epochs", "x"], "'x': expected an integer"),
        (["train", "digits", "--lr", "-1"], "above 0"),
        (["train", "digits", "--lr", "nan"], "above 0"),
        (["train", "digits", "--dropout", "1"], "0 <= P < 1"),
        (["train", "digits", "--validation", "1"], "between 0 and 1"),
        (["train", "digits", "--hidden", "64,,64"], "at least 1"),
        (["train", "digits", "--seed", "-1"], "from 0"),
        (["train", "digits", "--activation", "rleu"], "invalid choice"),
        (["train", "digits", "--optimizer", "lion"], "invalid choice"),
        (["train", "digits", "--plot", "a.xyz"], "a.xyz"),
        (["train", "digits", "--data-dir", "."], "goes with mnist"),
        (["train", "mnist"], "needs --data-dir"),
        (["train", "digits", "--threads", "1000"], "1 to 256"),
        (["predict", "m", "digits", "--out", "a.txt"], "csv or .npy"),
    ],
)
def test_wrong_usage(capsys: Capture, argv: list[str], match: str) -> None:
    refused(capsys, *argv, status=2, match=match)


def test_data_that_is_not_there(capsys: Capture, tmp_path: Path) -> None:
    refused(capsys, "train", "nothing", status=1, match="nothing: expected digits")
    refused(capsys, "train", str(tmp_path), status=1, match="no IDX file of the train images")
    refused(capsys, "train", str(tmp_path / "a.npz"), status=1, match=r"a\.npz: No such file")
    refused(capsys, "train", "mnist", "--data-dir", str(tmp_path / "no"), status=1, match="no such folder")
    refused(capsys, "train", "digits", "--out", str(tmp_path / "no" / "m"), status=1, match="no such folder")
    refused(capsys, "train", "digits", "--out", str(tmp_path), status=1, match="a folder")


def test_data_that_does_not_fit(capsys: Capture, model: str, tmp_path: Path) -> None:
    ones = np.ones((20, 3))
    cases: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
        "one class": ({"X": ones, "y": np.zeros(20, int)}, [], 2, "two classes"),
        "names as numbers": ({"X": ones, "y": np.array(["a", "b"] * 10)}, ["--loss", "mse"], 2, "names"),
        "rows as labels": ({"X": ones, "y": ones}, ["--loss", "cross_entropy"], 2, "two classes"),
        "one row": ({"X": ones[:1], "y": ones[:1, 0]}, [], 1, "two rows"),
        "nan": ({"X": ones * np.nan, "y": ones[:, 0]}, [], 1, r"X holds nan at \(0, 0\)"),
        "huge": ({"X": ones, "y": ones[:, 0] * 1e300}, [], 1, r"y holds 1e\+300 at \(0,\)"),
    }
    for name, (arrays, options, status, match) in cases.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        refused(capsys, "train", str(path), *options, status=status, match=match)
    np.savez(tmp_path / "narrow.npz", X=ones, y=np.zeros(20, int))
    refused(capsys, "evaluate", model, str(tmp_path / "narrow.npz"), status=1, match="3 columns.*64")
    X, y = datasets.digits(scale=False)
    np.savez(tmp_path / "labels.npz", X=X, y=y + 1)
    refused(capsys, "evaluate", model, str(tmp_path / "labels.npz"), status=1, match="label 10")
    np.save(tmp_path / "x.npy", X)
    refused(capsys, "train", str(tmp_path / "x.npy"), status=2, match="no targets")
    refused(capsys, "evaluate", model, str(tmp_path / "x.npy"), status=2, match="no targets")


def test_models_that_are_none(capsys: Capture, tmp_path: Path) -> None:
    files = {
        "empty": b"",
        "text": b"hello" * 99,
        "pickle": pickle.dumps(list(range(100))),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for command in (["info"], ["evaluate"], ["predict"]):
            argv = [*command, str(tmp_path / name), *([] if command == ["info"] else ["digits"])]
            refused(capsys, *argv, status=1, match="safetensors")
    _safetensors.write(tmp_path / "weights", {"w": np.ones(3)})
    refused(capsys, "info", str(tmp_path / "weights"), status=1, match="weights")
    refused(capsys, "info", str(tmp_path / "absent"), status=1, match="absent")
    refused(capsys, "info", str(tmp_path), status=1, match="folder")


@pytest.mark.parametrize(
    "change",
    [
        {"fraction": 5.0},
        {"seed": -1},
        {"classes": [3, 2, 1]},
        {"classes": [[1], [2]]},
        {"classes": [0, 1]},
        {"scale": [0.0]},
        {"scale": []},
        {"shift": "x"},
        {"surprise": 1},
    ],
)
def test_hostile_preprocessing_is_refused(
    capsys: Capture, model: str, tmp_path: Path, change: dict[str, Any]
) -> None:
    net = gm.load(model)
    net.preprocessing |= change
    path = str(tmp_path / "m.safetensors")
    net.save(path)
    refused(capsys, "evaluate", path, "digits", status=1, match="preprocessing")


def test_divergence_is_told_and_nothing_written(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    refused(
        capsys,
        *["train", "digits", "--optimizer", "sgd", "--lr", "1e30", "--quiet", "--out", str(path)],
        status=1,
        match="epoch 1",
    )
    assert not path.exists()
