"""The command line: models, and what it says to bad input. Training is in test_cli_train.py."""

import csv
import pickle
import subprocess
import sys
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
