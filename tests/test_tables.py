"""Tables in Python: the encoder, and networks that are given frames, dicts of columns, structured arrays."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gemmule as gm
from gemmule.tables import TableEncoder, TableWarning, read_csv

Array = NDArray[Any]
NAN = float("nan")
MIXED: dict[str, Any] = {
    "age": [20.0, 30.0, NAN, 50.0, 60.0],
    "city": ["Rome", "Oslo", None, "Rome", "Rome"],
    "member": [True, False, True, True, False],
    "id": ["a", "b", "c", "d", "e"],
    "same": [7, 7, 7, 7, 7],
    "empty": [None, None, None, None, None],
    "word": ["x", "x", "x", "x", "x"],
}


def frames() -> list[Any]:
    """The ways to hand a table over, each a function of columns; skipped by name where a package is not
    there."""

    def pandas(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("pandas").DataFrame(columns)

    def polars(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("polars").DataFrame(columns, strict=False)

    def arrow(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("pyarrow").table(columns)

    def mapping(columns: dict[str, Any]) -> Any:
        return columns

    def structured(columns: dict[str, Any]) -> Any:
        arrays = {name: np.array(cells, dtype=kind(cells)) for name, cells in columns.items()}
        fields = [(name, array.dtype) for name, array in arrays.items()]
        table = np.empty(len(next(iter(arrays.values()))), fields)
        for name, array in arrays.items():
            table[name] = array
        return table

    def kind(cells: Any) -> Any:
        return object if any(cell is None or isinstance(cell, str) for cell in cells) else None

    return [pandas, polars, arrow, mapping, structured]


@pytest.fixture(params=frames(), ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def mixed_data(count: int = 300, seed: int = 0) -> tuple[dict[str, Any], Array, list[str]]:
    """(columns, numbers to fit, names to tell apart), of a number and of text; some of both missing."""
    rng = np.random.default_rng(seed)
    size = rng.normal(50, 20, count)
    colour = rng.choice(["red", "green", "blue"], count)
    value = size / 20 + np.select([colour == "red", colour == "green"], [2.0, -2.0], 0.0)
    shown = np.where(rng.random(count) < 0.05, np.nan, size)
    named = [None if rng.random() < 0.05 else str(name) for name in colour]
    return {"size": shown, "colour": named}, value, ["high" if v > 2.5 else "low" for v in value]


# -- the encoder ---------------------------------------------------------------------------------------------


def test_every_kind_of_column(make: Any) -> None:
    """Against the formulas, by hand."""
    encoder = TableEncoder()
    X = encoder.fit_transform(make(MIXED))
    assert encoder.inputs == ["age", "age missing", "city=Oslo", "city=Rome", "city missing", "member"]
    age = (np.array([20, 30, 40, 50, 60]) - 40) / np.std([20, 30, 50, 60])
    member = (np.array([1, 0, 1, 1, 0]) - 0.6) / np.std([1, 0, 1, 1, 0])
    expected = np.array([age, [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 1, 1], [0, 0, 1, 0, 0], member]).T
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    np.testing.assert_allclose(X, expected, rtol=1e-6)
    assert set(encoder.dropped) == {"id", "same", "empty", "word"}
    for name, reason in {"id": "an id", "same": "same value", "empty": "no value", "word": "same"}.items():
        assert reason in encoder.dropped[name]
    described = encoder.describe()
    assert "1 missing: filled with the mean" in described
    assert "dropped: as many categories as rows" in described


def test_transform_goes_by_name(make: Any) -> None:
    encoder = TableEncoder().fit(make(MIXED))
    X = encoder.transform(make(MIXED))
    turned = {name: MIXED[name] for name in ("member", "city", "age")} | {"other": [1, 2, 3, 4, 5]}
    np.testing.assert_array_equal(encoder.transform(make(turned)), X)
    assert encoder.transform(make(MIXED), dtype="float64").dtype == np.float64
    for absent, match in [("age", "no column 'age'"), ("city", "no column 'city'; there are age, member")]:
        rest = {name: cells for name, cells in MIXED.items() if name != absent}
        with pytest.raises(gm.ShapeError, match=match):
            encoder.transform(make(rest))


def test_what_was_not_learned_gives_zeros_and_is_counted(make: Any) -> None:
    encoder = TableEncoder().fit(make({"n": [1.0, 2.0, 4.0], "t": ["a", "b", "a"]}))
    with pytest.warns(TableWarning) as told:
        X = encoder.transform(make({"n": [1.0, NAN, 4.0, 2.0], "t": ["z", "a", None, "y"]}))
    assert X[1, 0] == pytest.approx(0, abs=1e-7)
    np.testing.assert_array_equal(X[:, 1:], [[0, 0], [1, 0], [0, 0], [0, 0]])
    texts = [str(warning.message) for warning in told]
    assert any("'n': 1 row without a value, filled with the mean" in text for text in texts)
    assert any("'t': 2 rows with a category not learned ('z', 'y')" in text for text in texts)
    assert any("'t': 1 row without a value, zeros" in text for text in texts)


def test_the_commonest_categories_are_kept() -> None:
    words = ["c"] * 5 + ["a"] * 3 + ["b"] * 3 + ["d"]
    encoder = TableEncoder(max_categories=2).fit({"w": words})
    assert encoder.inputs == ["w=a", "w=c"]
    assert "4 rows of rarer ones" in encoder.describe()
    with pytest.warns(TableWarning, match=r"4 rows .* \('b', 'd'\)"):
        assert encoder.transform({"w": words}).sum() == 8


def test_columns_left_out_on_request() -> None:
    encoder = TableEncoder(drop=["city", "id"]).fit(MIXED)
    assert encoder.names == ["age", "member"]
    assert encoder.dropped["city"] == "as asked"
    with pytest.raises(ValueError, match=r"no column 'citty' \(did you mean 'city'\?\)"):
        TableEncoder(drop=["citty"]).fit(MIXED)


def test_the_index_of_a_frame_is_dropped() -> None:
    numbers = [3.0, 1.0, 2.0, 5.0]
    encoder = TableEncoder().fit({"Unnamed: 0": range(4), "year": range(1990, 1994), "n": numbers})
    assert encoder.names == ["year", "n"]
    assert "index" in encoder.dropped["Unnamed: 0"]
    assert TableEncoder().fit({"Unnamed: 0": numbers}).names == ["Unnamed: 0"]


def test_numbers_and_text_for_one_another() -> None:
    """A column of text may come as numbers where a file holds no others; not the other way round."""
    encoder = TableEncoder().fit({"room": ["1", "2b", "1", "7.5"], "n": [1, 2, 3, 5]})
    X = encoder.transform({"room": [1, 7.5], "n": [1, 2]})
    np.testing.assert_array_equal(X[:, :3], [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(gm.DTypeError, match="column 'n' holds 'two'; it held numbers in training"):
        encoder.transform({"room": ["1", "1"], "n": ["two", None]})
    with pytest.warns(TableWarning, match="2 rows without"):
        np.testing.assert_allclose(encoder.transform({"room": ["1", "1"], "n": [None, None]})[:, 3], 0)


def test_numbers_beyond_float32_are_refused() -> None:
    encoder = TableEncoder().fit({"a": [0.0, 1e-30]})
    with pytest.raises(ValueError, match=r"column 'a' holds 1e\+30, beyond float32"):
        encoder.transform({"a": [1e30]})
    assert np.isfinite(encoder.transform({"a": [1e30]}, dtype="float64")).all()


def test_json_keeps_the_encoder_and_nothing_hostile() -> None:
    encoder = TableEncoder(drop=["same"]).fit(MIXED)
    value = json.loads(json.dumps(encoder.to_json()))
    again = TableEncoder.from_json(value)
    np.testing.assert_array_equal(again.transform(MIXED), encoder.transform(MIXED))
    assert again.describe() == encoder.describe()
    changes: list[tuple[list[Any], Any]] = [
        ([], 3),
        (["columns"], []),
        (["columns"], {}),
        (["columns", 0], "age"),
        (["columns", 0, "kind"], "date"),
        (["columns", 0, "kind"], ["number"]),
        (["columns", 0, "name"], "city"),
        (["columns", 0, "name"], 3),
        (["columns", 0, "deviation"], 0.0),
        (["columns", 0, "mean"], NAN),
        (["columns", 0, "missing"], -1),
        (["columns", 1, "categories"], []),
        (["columns", 1, "categories"], ["a", "a"]),
        (["columns", 1, "categories"], "ab"),
        (["columns", 1, "rare"], "many"),
        (["dropped"], [1]),
        (["dropped", "same"], 1),
        (["surprise"], 1),
    ]
    for path, replacement in changes:
        hostile = copy.deepcopy(value)
        place = hostile
        for key in path[:-1]:
            place = place[key]
        if path:
            place[path[-1]] = replacement
        else:
            hostile = replacement
        with pytest.raises(gm.FileError, match="preprocessing: table"):
            TableEncoder.from_json(hostile)
    del value["columns"][0]["mean"]
    with pytest.raises(gm.FileError, match="'age' has no or an unknown 'mean'"):
        TableEncoder.from_json(value)


@pytest.mark.parametrize(
    ("table", "kind", "match"),
    [
        (3, TypeError, "expected a data frame, .* not int"),
        (np.ones((3, 2)), TypeError, "not ndarray"),
        ({}, gm.ShapeError, "no columns"),
        ({"a": []}, gm.ShapeError, "no rows"),
        ({"a": [1, 2], "b": [1]}, gm.ShapeError, "differ in rows: 'a' has 2, 'b' has 1"),
        ({"a": np.ones((2, 2))}, gm.ShapeError, r"column 'a' has shape \(2, 2\)"),
        ({"a": np.array([1, "x"], object)}, gm.DTypeError, "'x' .str. beside numbers"),
        ({"a": np.array([1, {}], object)}, gm.DTypeError, "{} .dict. beside numbers"),
        ({"a": np.array([{}, "x"], object)}, gm.DTypeError, "{} .dict."),
        ({"a": [0j, 1j]}, gm.DTypeError, "has dtype complex128"),
        ({"a": np.array(["2020-01-01"], "M8[D]")}, gm.DTypeError, "datetime64"),
        ({"a": [1.0, np.inf]}, ValueError, "'a' holds inf in row 1"),
        ({"a": [1.0, -1e300]}, ValueError, r"'a' holds -1e\+300 in row 1"),
        ({"a": [1, 1], "b": ["x", "y"]}, gm.ShapeError, "no column is left .*'a': the same.*'b': as many"),
    ],
)
def test_unusable_tables_are_refused(table: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        TableEncoder().fit(table)


def test_wrong_arguments_of_the_encoder() -> None:
    with pytest.raises(TypeError, match="drop must be a list"):
        TableEncoder(drop="city")
    for most in (0, True, 2.0):
        with pytest.raises(ValueError, match="max_categories"):
            TableEncoder(max_categories=most)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="call fit first"):
        TableEncoder().transform(MIXED)
    assert "max_categories=256" in repr(TableEncoder())
    assert "3 columns to 6 inputs" in repr(TableEncoder().fit(MIXED))


def test_a_csv_file_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("age,city,member\n20,Rome,1\n30,Oslo,0\nNA,,1\n50,Rome,1\n60,Rome,0\n")
    encoder = TableEncoder().fit(MIXED)
    np.testing.assert_array_equal(encoder.transform(path), encoder.transform(MIXED))
    columns = read_csv(path)
    np.testing.assert_array_equal(columns["age"], MIXED["age"])
    assert columns["city"].tolist() == MIXED["city"]
    np.testing.assert_array_equal(TableEncoder().fit_transform(columns), encoder.transform(path))


# -- networks ------------------------------------------------------------------------------------------------


def test_frames_of_numbers_work_as_they_are(make: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).astype(np.float32)
    y = X @ [1, -2, 0.5]
    table = make({name: X[:, i] for i, name in enumerate("abc")})
    nets = [gm.Network.mlp([3, 8, 1], rng=0) for _ in range(2)]
    nets[0].fit(X, y, loss="mse", epochs=3)
    nets[1].fit(table, y, loss="mse", epochs=3, validation_split=0.0)
    assert nets[1].preprocessing == {}
    np.testing.assert_array_equal(nets[0].predict(X), nets[1].predict(table))
    assert nets[0].evaluate(X, y) == nets[1].evaluate(table, y)


def test_fit_learns_the_preparation_of_text(make: Any) -> None:
    columns, value, _ = mixed_data()
    held, held_value, _ = mixed_data(100, seed=1)
    net = gm.Network([gm.Dense(None, 16, "tanh"), gm.Dense(16, 1)], rng=0)
    net.fit(
        make(columns), value, loss="mse", optimizer=gm.Adam(1e-2), epochs=60,
        validation_data=(make(held), held_value),
    )  # fmt: skip
    assert net.input_shape == (6,)
    encoder = TableEncoder().fit(make(columns))
    assert net.preprocessing == {"table": encoder.to_json()}
    X = encoder.transform(columns)
    np.testing.assert_array_equal(net.predict(make(columns)), net.predict(X))
    assert net.history is not None
    score = net.evaluate(make(held), held_value)["loss"]
    assert score == pytest.approx(net.history["val_loss"][-1], rel=1e-5)
    assert score < 0.3 * held_value.var()  # a twentieth of both columns is not told
    turned = dict(reversed(held.items())) | {"more": held["colour"]}
    np.testing.assert_array_equal(net.predict(make(turned)), net.predict(make(held)))
    with pytest.raises(gm.ShapeError, match="no column 'colour'"):
        net.predict(make({"size": held["size"]}))


def test_a_second_fit_keeps_the_preparation(make: Any) -> None:
    columns, value, _ = mixed_data()
    other, other_value, _ = mixed_data(50, seed=3)
    net = gm.Network([gm.Dense(None, 1)], rng=0)
    net.fit(make(columns), value, loss="mse")
    kept = copy.deepcopy(net.preprocessing)
    net.fit(make(other), other_value)
    assert net.preprocessing == kept


def test_text_in_y_becomes_classes(make: Any, tmp_path: Path) -> None:
    columns, _, names = mixed_data()
    net = gm.Network([gm.Dense(None, 16, "relu"), gm.Dense(16, 2)], rng=0)
    whole = make(columns | {"class": names})
    net.fit(whole, "class", loss="cross_entropy", optimizer=gm.Adam(1e-2), epochs=40, validation_split=0.2)
    assert net.preprocessing["classes"] == ["high", "low"]
    assert net.preprocessing["target"] == "class"
    assert "class" not in [column["name"] for column in net.preprocessing["table"]["columns"]]
    found = np.array(net.preprocessing["classes"])[net.predict(whole).argmax(axis=1)]
    accuracy = np.mean(found == np.array(names))
    assert accuracy > 0.9
    scores = net.evaluate(make(columns), make({"class": names}))
    assert scores["accuracy"] == pytest.approx(accuracy)
    assert net.evaluate(whole, "class") == scores == net.evaluate(whole, names)
    net.save(tmp_path / "m.safetensors")
    again = gm.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(whole), net.predict(whole))
    np.testing.assert_array_equal(copy.deepcopy(net).predict(whole), net.predict(whole))
    with pytest.raises(gm.ShapeError, match="label 'middling' is none of the model's 2 classes"):
        net.evaluate(make(columns), ["middling"] * 300)
    with pytest.raises(gm.ShapeError, match="label 0 is none"):
        net.evaluate(make(columns), np.zeros(300, int))


def test_series_are_targets() -> None:
    columns, value, names = mixed_data()
    for package in ("pandas", "polars"):
        module = pytest.importorskip(package)
        frame = module.DataFrame({"size": np.nan_to_num(columns["size"]), "value": value, "class": names})
        net = gm.Network.mlp([1, 4, 1], rng=0)
        net.fit(frame[["size"]], frame["value"], loss="mse")
        net.evaluate(frame[["size"]], frame[["value"]])
        net = gm.Network.mlp([1, 4, 2], rng=0)
        net.fit(frame[["size"]], frame["class"], loss="cross_entropy")
        assert net.preprocessing == {"classes": ["high", "low"]}


def test_pandas_types_of_its_own() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "n": pandas.array([1, None, 3, 4], dtype="Int64"),
            "t": pandas.array(["a", None, "b", "a"], dtype="string"),
            "c": pandas.Categorical([1, 2, None, 1]),
        }
    )
    encoder = TableEncoder().fit(frame)
    assert encoder.inputs == ["n", "n missing", "t=a", "t=b", "t missing", "c=1", "c=2", "c missing"]
    assert np.isfinite(encoder.transform(frame)).all()
    with pytest.raises(gm.DTypeError, match="column 'd' has dtype datetime64"):
        TableEncoder().fit(pandas.DataFrame({"d": pandas.to_datetime(["2020-01-01", "2021-01-01"])}))
    twice = pandas.DataFrame(np.ones((2, 2)), columns=["a", "a"])
    with pytest.raises(gm.ShapeError, match="more than one column is called 'a'"):
        TableEncoder().fit(twice)
    assert TableEncoder().fit(pandas.DataFrame(np.eye(2))).names == ["0", "1"]


def test_polars_types_of_its_own() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {"c": ["x", "y", None, "x"], "n": [1, None, 3, 4]}, schema={"c": polars.Categorical, "n": polars.Int8}
    )
    encoder = TableEncoder().fit(frame)
    assert encoder.inputs == ["c=x", "c=y", "c missing", "n", "n missing"]
    with pytest.raises(TypeError, match="collect"):
        TableEncoder().fit(frame.lazy())


@pytest.mark.parametrize("text", [False, True])
def test_bad_tables_leave_the_network_alone(text: bool) -> None:
    columns: dict[str, Any] = {"a": [1.0, 2.0, 3.0, 5.0], "b": [1, 0, 0, 1]}
    if text:
        columns["t"] = ["x", "y", "x", "y"]
    width = 4 if text else 2
    good = [1.0, 2.0, 3.0, 4.0]

    def refused(kind: type[Exception], match: str, X: Any, y: Any, **options: Any) -> None:
        net = gm.Network.mlp([width, 3, 1], rng=0)
        before = {name: p.tobytes() for name, p in net.named_parameters()}
        with pytest.raises(kind, match=match):
            net.fit(X, y, loss="mse", **options)
        assert net.preprocessing == {} and net.loss is None and net.history is None
        assert before == {name: p.tobytes() for name, p in net.named_parameters()}

    refused(ValueError, r"y: X has no column 'bb' \(did you mean 'b'\?\)", columns, "bb")
    refused(ValueError, "y has no value in row 1", columns, [1.0, NAN, 3.0, 4.0])
    refused(gm.ShapeError, "one target a sample", columns, good[:3])
    refused(gm.ShapeError, r"x has \d features", columns | {"t": ["x", "x", "y", "z"]}, good)
    held = columns | {"b": [1, 0, 0, 1 if text else None]}
    match = "validation y has no value" if text else "validation X: column 'b' has no value in row 3"
    refused(ValueError, match, columns, good, validation_data=(held, [*good[:3], None] if text else good))
    refused(ValueError, "known", columns, good, metrics=["f3"])


def test_gaps_and_text_where_they_were_not_learned() -> None:
    net = gm.Network.mlp([2, 1], rng=0)
    with pytest.raises(
        ValueError, match=r"X: column 'b' has no value in row 1; fill it, or let .*TableEncoder"
    ):
        net.fit({"a": [1, 2], "b": [1, None]}, [1, 2], loss="mse")
    net.fit({"a": [1, 2], "b": [1, 3]}, [1, 2], loss="mse")
    with pytest.raises(gm.DTypeError, match="column 'b' holds text"):
        net.predict({"a": [1, 2], "b": ["x", "y"]})
    with pytest.raises(gm.ShapeError, match="x has 1 features"):
        net.predict({"a": [1, 2]})


def test_an_encoder_of_ones_own() -> None:
    """Numbers with gaps: the encoder is asked for, and kept with the network."""
    columns, value, _ = mixed_data()
    sizes = {"size": columns["size"]}
    encoder = TableEncoder().fit(sizes)
    net = gm.Network.mlp([encoder.width, 8, 1], rng=0)
    net.preprocessing["table"] = encoder.to_json()
    net.fit(sizes, value, loss="mse")
    np.testing.assert_array_equal(net.predict(sizes), net.predict(encoder.transform(sizes)))
    assert next(iter(net.trace(sizes))) == "x"
    assert net.forward(sizes).shape == (300, 1)
