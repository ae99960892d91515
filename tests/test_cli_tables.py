"""CSV tables on the command line: trained on, scored, predicted; and what is said of those that are none."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, accuracy, refused, run

import gemmule as gm
from gemmule import _safetensors

IRIS = Path(__file__).parent.parent / "examples" / "iris.csv"
SMALL = ["--hidden", "16", "--quiet"]


def write(path: Path, columns: dict[str, Any], delimiter: str = ",") -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def houses(count: int = 400, seed: int = 0) -> dict[str, list[Any]]:
    """A price by area and town; some cells of both are missing, and some columns are of no use."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(40, 160, count)
    town = rng.choice(["Rome", "Oslo", "Bern"], count)
    price = 1000 * area + np.select([town == "Rome", town == "Oslo"], [40_000, -40_000], 0)
    price += 2000 * rng.normal(size=count)
    gap = ["", "NA", "NaN", "null", "?"]
    return {
        "id": [f"h{i}" for i in range(count)],
        "area": [gap[i % 5] if i % 40 == 0 else f"{a:.1f}" for i, a in enumerate(area)],
        "town": [gap[i % 5] if i % 50 == 0 else str(name) for i, name in enumerate(town)],
        "country": ["here"] * count,
        "note": [""] * count,
        "price": [f"{p:.2f}" for p in price],
    }


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The networks here are small; a team would wait for other work on the machine at each of many steps."""
    gm.set_num_threads(1)
    yield
    gm.set_num_threads(None)


@pytest.fixture(scope="module")
def house_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(model file, table it was trained from)."""
    from gemmule import cli

    folder = tmp_path_factory.mktemp("houses")
    data, model = write(folder / "houses.csv", houses()), str(folder / "m.safetensors")
    assert cli.main(["train", data, "--target", "price", "--epochs", "120", *SMALL, "--out", model]) == 0
    return model, data


def fit_of(text: str) -> tuple[float, float]:
    """(root mean squared error, R2)."""
    found = re.search(r"squared error ([\d.e+]+), R2 (-?[\d.]+)", text)
    assert found, text
    return float(found[1]), float(found[2])


# -- train ---------------------------------------------------------------------------------------------------


def test_the_file_is_fishers() -> None:
    """Means and deviations of Fisher 1936, table 1, by species."""
    columns = gm.tables.read_csv(IRIS)
    species = columns.pop("species")
    means = {"setosa": [5.006, 3.428, 1.462, 0.246], "versicolor": [5.936, 2.770, 4.260, 1.326],
             "virginica": [6.588, 2.974, 5.552, 2.026]}  # fmt: skip
    X = np.column_stack(list(columns.values()))
    assert X.shape == (150, 4)
    for name, expected in means.items():
        np.testing.assert_allclose(X[species == name].mean(axis=0), expected, atol=1e-12)
        assert np.sum(species == name) == 50
    sklearn = pytest.importorskip("sklearn.datasets")
    np.testing.assert_array_equal(X, sklearn.load_iris().data)


def test_iris_reaches_93_percent(capsys: Capture) -> None:
    """The mean of five seeds on the held-out fifth, with the defaults."""
    scores = []
    for seed in range(5):
        out, _ = run(capsys, "train", str(IRIS), "--target", "species", "--quiet", "--seed", str(seed))
        assert "(30 rows)" in out
        scores.append(accuracy(out))
    assert np.mean(scores) >= 93, scores


def test_iris_from_training_to_prediction(capsys: Capture, tmp_path: Path) -> None:
    path = str(tmp_path / "iris.safetensors")
    out, _ = run(capsys, "train", str(IRIS), "--target", "species", "--out", path)
    assert "120 rows to train on, 30 held out" in out
    assert "target 'species': 3 classes\n" in out
    assert "columns (4, as 4 inputs)" in out
    assert re.search(r"sepal_length +number, mean 5\.8", out)
    scored, _ = run(capsys, "evaluate", path, str(IRIS))
    assert accuracy(scored) == accuracy(out)
    assert "on 30 rows, held out in training" in scored
    assert "on 150 rows, all there are" in run(capsys, "evaluate", path, str(IRIS), "--all")[0]
    rows = list(csv.DictReader(run(capsys, "predict", path, str(IRIS), "--limit", "2", "--proba")[0].split()))
    assert [row["species"] for row in rows] == ["setosa", "setosa"]
    assert float(rows[0]["p(setosa)"]) > 0.9
    info, _ = run(capsys, "info", path)
    for text in ("target: species", "petal_width", "classes: setosa, versicolor, virginica", "seed 0"):
        assert text in info


def test_regression_with_mixed_and_missing_columns(capsys: Capture, tmp_path: Path) -> None:
    data, path = write(tmp_path / "houses.csv", houses()), str(tmp_path / "m.safetensors")
    out, _ = run(
        capsys, "train", data, "--target", "price", "--hidden", "16", "--epochs", "120", "--out", path
    )
    assert "target 'price': a number" in out
    assert "columns (2, as 6 inputs)" in out
    for name, text in {
        "id": "dropped: as many categories as rows: an id",
        "area": r"number, mean .*; \d+ missing: filled with the mean, and marked",
        "town": r"text, 3 categories: Bern, Oslo, Rome; \d+ missing: a category",
        "country": "dropped: the same value in every row",
        "note": "dropped: no value in any row",
    }.items():
        assert re.search(rf"^  {name} +{text}", out, re.M), (name, out)
    error, r2 = fit_of(out)
    assert r2 > 0.85  # 9 of 200 rows lack the area or the town
    assert error < 20_000
    scored, _ = run(capsys, "evaluate", path, data)
    assert fit_of(scored) == (error, r2)
    assert "on 80 rows, held out" in scored
    predicted, _ = run(capsys, "predict", path, data, "--limit", "20")
    rows = list(csv.DictReader(predicted.splitlines()))
    found = [float(row["price"]) for row in rows]
    assert np.corrcoef(found, [float(price) for price in houses()["price"][:20]])[0, 1] > 0.9


def test_columns_are_found_by_name(capsys: Capture, tmp_path: Path, house_model: tuple[str, str]) -> None:
    """In any order, with others, parted by another delimiter, without the target."""
    model, data = house_model
    columns = houses()
    expected, _ = run(capsys, "predict", model, data)
    turned = {name: columns[name] for name in ("town", "note", "area")} | {"new": ["x;y"] * 400}
    assert run(capsys, "predict", model, write(tmp_path / "a.tsv", turned, "\t")) == (expected, "")
    assert run(capsys, "predict", model, write(tmp_path / "no suffix", turned, ";"))[0] == expected
    bars = write(tmp_path / "a", turned, "|")
    assert run(capsys, "predict", model, bars, "--delimiter", "|")[0] == expected
    priced = write(tmp_path / "b.csv", turned | {"price": columns["price"]})
    scored, _ = run(capsys, "evaluate", model, priced)
    assert "held out in training" in scored  # the same rows
    assert fit_of(scored) == fit_of(run(capsys, "evaluate", model, data)[0])
    refused(
        capsys, "predict", model, write(tmp_path / "c.csv", {"id": ["a"], "area": [3]}),
        status=1, match=r"c\.csv: no column 'town'; its columns are id, area",
    )  # fmt: skip
    refused(capsys, "evaluate", model, str(tmp_path / "a.tsv"), status=1, match="no column 'price'")


def test_what_training_did_not_meet_is_counted(
    capsys: Capture, tmp_path: Path, house_model: tuple[str, str]
) -> None:
    columns = houses(50, seed=1)
    columns["town"][1:4] = ["Paris", "Paris", "Ulm"]
    columns["price"][:2] = ["", "?"]
    data = write(tmp_path / "new.csv", columns)
    out, err = run(capsys, "predict", house_model[0], data)
    assert len(out.splitlines()) == 51
    assert err == (
        "gemmule: column 'town': 3 rows with a category not learned ('Paris', 'Ulm'), zeros in its inputs\n"
    )
    out, err = run(capsys, "evaluate", house_model[0], data)
    assert "on 48 rows, all there are (not the data that it was trained from)" in out
    assert "2 of 50 rows have no 'price' and are left out" in err


def test_rows_without_a_target_are_left_out(capsys: Capture, tmp_path: Path) -> None:
    text = IRIS.read_text().splitlines()
    for i in (5, 60, 61):
        text[i] = text[i].rpartition(",")[0] + ",NA"
    data, path = tmp_path / "gaps.csv", str(tmp_path / "m.safetensors")
    data.write_text("\n".join(text))
    out, _ = run(capsys, "train", str(data), "--target", "species", "--epochs", "5", "--out", path)
    assert "3 of 150 rows have no 'species' and are left out" in out
    assert "118 rows to train on, 29 held out" in out
    assert "on 29 rows, held out" in run(capsys, "evaluate", path, str(data))[0]


def test_classes_or_a_number(capsys: Capture, tmp_path: Path) -> None:
    """By the rule of the help, and by --task and --loss."""
    count = 120
    x = np.random.default_rng(0).normal(size=count).round(4)
    data = write(
        tmp_path / "t.csv",
        {
            "x": x,
            "few": np.where(x > 0, 2, 7),
            "many": np.arange(count) % 30,
            "halves": np.where(x > 0, 0.5, 1.5),
            "text": np.where(x > 0, "1", "one"),
        },
    )
    argv = ["train", data, "--hidden", "4", "--epochs", "1", "--target"]
    for target, options, expected in [
        ("few", [], r"'few': 2 classes \(--task regress takes it otherwise\)"),
        ("few", ["--task", "regress"], "'few': a number\n"),
        ("few", ["--loss", "mae"], "'few': a number\n"),
        ("many", [], r"'many': a number \(--task classify takes it otherwise\)"),
        ("many", ["--task", "classify"], "'many': 30 classes\n"),
        ("halves", [], "'halves': a number"),
        ("halves", ["--task", "classify"], "'halves': 2 classes\n"),
        ("halves", ["--loss", "cross_entropy"], "'halves': 2 classes\n"),
        ("text", [], "'text': 2 classes\n"),
    ]:
        out, _ = run(capsys, *argv, target, *options)
        assert re.search(expected, out), (target, options, out)
        assert ("accuracy" in out) == ("classes\n" in out or "classes (" in out)
    path = str(tmp_path / "m.safetensors")
    run(capsys, *argv, "few", "--out", path)
    predicted = csv.DictReader(run(capsys, "predict", path, data)[0].splitlines())
    assert {row["few"] for row in predicted} <= {"2", "7"}
    refused(capsys, *argv, "text", "--task", "regress", status=2, match="'text' holds text, such as")
    refused(capsys, *argv, "text", "--loss", "mse", status=2, match="'text' holds text, such as")
    refused(
        capsys, *argv, "few", "--task", "classify", "--loss", "mse", status=2, match="does not go with --loss"
    )


def test_columns_left_out_on_request(capsys: Capture, tmp_path: Path) -> None:
    out, _ = run(
        capsys, "train", str(IRIS), "--target", "species", "--drop", "petal_width, petal_length",
        "--epochs", "1", "--out", str(tmp_path / "m"),
    )  # fmt: skip
    assert re.search(r"petal_width +dropped: as asked", out)
    assert "columns (2, as 2 inputs)" in out
    assert re.search(r"petal_length +dropped: as asked", run(capsys, "info", str(tmp_path / "m"))[0])


def test_early_stopping_keeps_the_best_epoch(capsys: Capture, tmp_path: Path) -> None:
    argv = ["train", str(IRIS), "--target", "species", "--lr", "0.03", "--epochs", "1000", "--early-stopping"]
    out, _ = run(capsys, *argv, "3")
    stopped = re.search(r"^stopped after epoch (\d+); the weights are those of epoch (\d+)$", out, re.M)
    assert stopped, out
    assert int(stopped[1]) == int(stopped[2]) + 3 < 1000
    short, _ = run(capsys, *argv[:-2], stopped[2], "--quiet")  # as many epochs as were best
    kept = re.search(r"held-out (.*) \(30 rows\)", out)
    assert kept and kept[0] in short
    assert f"{stopped[1]} epochs in" in out
    assert "stopped after" in run(capsys, *argv)[0]
    refused(capsys, *argv, "0", status=2, match="'0': expected an integer of at least 1")


def test_resuming_gives_the_same_model(capsys: Capture, tmp_path: Path) -> None:
    whole, parts, checkpoint = (str(tmp_path / name) for name in ("whole", "parts", "checkpoint"))
    argv = ["train", str(IRIS), "--target", "species", *SMALL, "--epochs"]
    run(capsys, *argv, "10", "--out", whole)
    run(capsys, *argv, "4", "--checkpoint", checkpoint)
    run(capsys, *argv, "10", "--resume", checkpoint, "--out", parts)
    assert Path(parts).read_bytes() == Path(whole).read_bytes()
    refused(capsys, *argv, "10", "--resume", str(tmp_path / "absent"), status=1, match="absent")
    refused(capsys, *argv, "10", "--checkpoint", str(tmp_path), status=1, match="a folder")


@pytest.mark.parametrize(("target", "panels"), [("species", 2), ("petal_width", 1)])
def test_pictures(capsys: Capture, tmp_path: Path, target: str, panels: int) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curves.png"
    run(capsys, "train", str(IRIS), "--target", target, *SMALL, "--plot", str(path))
    header = path.read_bytes()[:24]
    assert header[:4] == b"\x89PNG"
    assert int.from_bytes(header[16:20], "big") == pytest.approx(675 * panels, abs=2)  # 4.5 inches a panel


# -- models of other origins ---------------------------------------------------------------------------------


def test_models_trained_in_python(capsys: Capture, tmp_path: Path) -> None:
    columns: dict[str, Any] = dict(gm.tables.read_csv(IRIS))
    columns["size"] = np.where(columns["sepal_length"] > 5.8, "large", "small")
    data, path = write(tmp_path / "t.csv", columns), str(tmp_path / "m.safetensors")
    net = gm.Network([gm.Dense(None, 16, "relu"), gm.Dense(16, 3)], rng=0)
    net.fit(columns, "species", loss="cross_entropy", optimizer=gm.Adam(1e-2), epochs=30)
    net.save(path)
    expected = net.evaluate(columns, "species")["accuracy"]
    assert accuracy(run(capsys, "evaluate", path, data)[0]) == pytest.approx(100 * expected, abs=0.006)
    out, _ = run(capsys, "predict", path, data, "--limit", "1")
    assert out == "row,species\n0,setosa\n"
    assert "columns (5, as 6 inputs)" in run(capsys, "info", path)[0]

    net = gm.Network([gm.Dense(None, 1)], rng=0)
    net.fit({"size": columns["size"]}, columns["petal_width"], loss="mse", epochs=30)
    net.save(path)
    refused(capsys, "evaluate", path, data, status=2, match="--target: .*does not say which column")
    out, _ = run(capsys, "evaluate", path, data, "--target", "petal_width")
    loss = net.evaluate(columns, columns["petal_width"])["loss"]
    assert re.search(rf"loss {loss:.4g} on 150 rows", out)
    assert run(capsys, "predict", path, data, "--limit", "1")[0].startswith("row,y0\n0,")


def test_frames_for_a_model_of_the_command_line(house_model: tuple[str, str]) -> None:
    net = gm.load(house_model[0])
    columns = gm.tables.read_csv(house_model[1])
    scale, shift = (net.preprocessing[f"target_{name}"][0] for name in ("scale", "shift"))
    found = net.predict(columns)[:, 0] * scale + shift
    assert np.corrcoef(found, columns["price"])[0, 1] > 0.9
    polars = pytest.importorskip("polars")
    frame = polars.read_csv(house_model[1], null_values=["", "NA", "NaN", "null", "?"])
    np.testing.assert_allclose(net.predict(frame)[:, 0] * scale + shift, found, rtol=1e-5)


def test_models_of_arrays_are_written_as_before(capsys: Capture, tmp_path: Path) -> None:
    """So earlier versions read what this one writes, and this one what they wrote."""
    path = str(tmp_path / "m.safetensors")
    run(capsys, "train", "digits", *SMALL, "--epochs", "1", "--out", path)
    keys = "data fingerprint fraction seed shift scale classes target_shift target_scale".split()
    assert list(gm.load(path).preprocessing) == keys


def test_arrays_and_tables_are_told_apart(
    capsys: Capture, tmp_path: Path, house_model: tuple[str, str]
) -> None:
    model, data = house_model
    arrays = str(tmp_path / "a.safetensors")
    run(capsys, "train", "digits", *SMALL, "--epochs", "1", "--out", arrays)
    refused(capsys, "predict", arrays, data, status=1, match="trained on arrays, not on a table")
    refused(capsys, "evaluate", arrays, "digits", "--target", "x", status=2, match="goes with CSV tables")
    refused(capsys, "evaluate", arrays, "digits", "--delimiter", ";", status=2, match="goes with CSV tables")
    refused(capsys, "predict", model, "digits", status=1, match="takes a table with the columns area, town")
    gm.Network.mlp([2, 1], rng=0).save(arrays)
    refused(capsys, "predict", arrays, data, status=1, match="trained on arrays, not on a table")
    _, metadata = _safetensors.read(arrays)
    assert json.loads(metadata["preprocessing"]) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"table": None, "target": "price"},
        {"table": {"columns": []}},
        {"table": {"columns": [{"name": "a"}], "dropped": {}}},
        {"target": 3},
        {"fingerprint": 3},
    ],
)
def test_hostile_preprocessing_is_refused(
    capsys: Capture, tmp_path: Path, house_model: tuple[str, str], change: dict[str, Any]
) -> None:
    net = gm.load(house_model[0])
    net.preprocessing |= change
    path = str(tmp_path / "m.safetensors")
    net.save(path)
    match = "trained on arrays" if change.get("table", 0) is None else "preprocessing"
    refused(capsys, "evaluate", path, house_model[1], status=1, match=match)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (
            [str(IRIS)],
            "needs --target NAME, the column to learn; its columns are sepal_length, sepal_width, ",
        ),
        ([str(IRIS), "--target", "Specie"], r"no column 'Specie' \(did you mean 'species'\?\); its columns"),
        ([str(IRIS), "--target", "zzz"], r"no column 'zzz'; its columns are .*line 1 is read as their names"),
        ([str(IRIS), "--target", "species", "--drop", "petal"], "--drop: .* no column 'petal'"),
        ([str(IRIS), "--target", "species", "--drop", "species"], "'species' is the target"),
        ([str(IRIS), "--target", "species", "--drop", "a,,b"], "expected names of columns"),
        ([str(IRIS), "--target", "species", "--delimiter", ",,"], "expected one character"),
        (["digits", "--target", "species"], "--target goes with CSV tables, not with digits"),
        (["digits", "--task", "regress"], "--task goes with CSV tables"),
        (["digits", "--drop", "a"], "--drop goes with CSV tables"),
        ([str(IRIS), "--target", "species", "--task", "guess"], "invalid choice"),
    ],
)
def test_wrong_usage(capsys: Capture, argv: list[str], match: str) -> None:
    refused(capsys, "train", *argv, status=2, match=match)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "the file is empty"),
        ("a,y\n", "no rows below"),
        ("a,y\n1,2\n3\n", "line 3 has 1 fields"),
        ("a,a,y\n1,2,3\n", "more than one column is called 'a'"),
        ("y\n1\n2\n", "no column beside 'y'"),
        ("a,y\n1,yes\n2,yes\n", "'y' is yes in every row"),
        ("a,y\n1,1.5\n2,1.5\n", r"'y' is 1\.5 in every row"),
        ("a,y\n1,\n2,NA\n", "'y' has no value in any row"),
        ("a,y\n1,0.5\n2,\n", r"'y' is 0\.5 in every row"),
        ("a,b,y\n1,u,0.5\n1,v,2\n1,w,3\n", "no column is left to learn from .*'b': as many categories"),
        ("a,y\n1,inf\n2,3\n", "column 'y' holds inf in line 2"),
        ('a,y\n1,"x\n', "unexpected end of data"),
    ],
)
def test_tables_that_cannot_be_learned(capsys: Capture, tmp_path: Path, content: str, match: str) -> None:
    data, out = tmp_path / "t.csv", tmp_path / "m.safetensors"
    data.write_text(content)
    refused(capsys, "train", str(data), "--target", "y", "--out", str(out), status=1, match=match)
    assert not out.exists()


def test_tables_that_do_not_fit_the_model(
    capsys: Capture, tmp_path: Path, house_model: tuple[str, str]
) -> None:
    columns = houses(10)
    columns["area"][3] = "large"
    data = write(tmp_path / "t.csv", columns)
    for command in ("predict", "evaluate"):
        refused(capsys, command, house_model[0], data, status=1, match="'area' holds 'large' in line 5")
    refused(capsys, "predict", house_model[0], str(tmp_path / "absent.csv"), status=1, match="No such file")
    refused(capsys, "predict", house_model[0], str(tmp_path), status=1, match="IDX")
