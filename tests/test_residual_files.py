"""Layers with a way around them: names, files, descriptions, what they refuse."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import points
from helpers import Doubling, weights
from numpy.typing import NDArray
from residual_cases import LABELS, block, everything, network

import gemmule as gm
from gemmule import _safetensors

Array = NDArray[Any]


# -- names, files, copies ------------------------------------------------------------------------------------


def test_names() -> None:
    inner = gm.Residual(gm.Dense(2, 2, name="a"), shortcut=[gm.Dense(2, 2), gm.BatchNorm(2, name="norm")])
    net = network((2,), gm.Residual(inner, gm.Activation("relu")), gm.Dense(2, 1, name="out"))
    assert list(net.state_dict()) == [
        *("0.0.a.weight", "0.0.a.bias", "0.0.shortcut.0.weight", "0.0.shortcut.0.bias"),
        *(f"0.0.shortcut.norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        *("out.weight", "out.bias"),
    ]
    assert [name for name, _ in net.named_state()] == [
        "0.0.shortcut.norm.running_mean",
        "0.0.shortcut.norm.running_var",
    ]
    trace = net.trace(points((3, 2)))
    assert list(trace) == [
        *("x", "0.0.a.z", "0.0.a.h", "0.0.shortcut.0.z", "0.0.shortcut.0.h"),
        *("0.0.shortcut.norm.z", "0.0.shortcut.norm.h", "0.0.z", "0.0.h", "0.1.h", "0.z", "0.h"),
        *("out.z", "out.h"),
    ]
    np.testing.assert_array_equal(trace["0.0.z"], trace["0.0.a.h"] + trace["0.0.shortcut.norm.h"])
    np.testing.assert_array_equal(trace["0.z"], trace["0.1.h"] + trace["x"])


def test_files_and_copies(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 2)).astype(np.float32)
    net = everything()
    net.fit(x, LABELS, loss="cross_entropy", epochs=2)
    path = tmp_path / "net.safetensors"
    net.save(path)
    loaded = everything(rng=9)
    loaded.load_state_dict(net.state_dict())
    others = [gm.load(path), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded]
    for other in others:
        assert repr(other) == repr(net) and other.summary() == net.summary()
        np.testing.assert_array_equal(other.predict(x), net.predict(x))
        assert {name: a.tobytes() for name, a in other.state_dict().items()} == {
            name: a.tobytes() for name, a in net.state_dict().items()
        }
        assert [on for _, _, on in other.segments()] == [on for _, _, on in net.segments()]
        other.fit(x, LABELS, loss="cross_entropy", epochs=1, optimizer="sgd")
    assert weights(others[0]) == weights(others[1]) == weights(others[2])
    # What is shared still is.
    again = others[0]
    assert again[2] is again[3]._chains[""]._layers[0]


def in_a_file(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A network of one Residual, whose description was changed behind gemmule's back."""
    network((3,), gm.Residual(gm.Dense(3, 3), shortcut=gm.Dense(3, 3)), dtype="float32").save(path)
    tensors, metadata = _safetensors.read(path)
    described = json.loads(metadata["network"])
    change(described["layers"][0])
    _safetensors.write(path, tensors, {**metadata, "network": json.dumps(described)})
    return path


def nested(entry: dict[str, Any]) -> None:
    for _ in range(70):
        inner = {**entry, "chains": dict(entry["chains"])}
        entry["chains"] = {"": [inner], "shortcut": entry["chains"]["shortcut"]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: e.pop("chains"), "no or an unknown ''"),
        (lambda e: e.update(chains=3), "malformed"),
        (lambda e: e.update(chains=[e["chains"][""]]), "malformed"),
        (lambda e: e.update(chains={}), "no or an unknown ''"),
        (lambda e: e["chains"].update({"": []}), "at least one layer"),
        (lambda e: e["chains"].update({"": 3}), "not a list"),
        (lambda e: e["chains"].update({"": [{"again": 0}]}), "contains itself"),
        (lambda e: e["chains"].update({"": [{"again": 9}]}), "9 is not an integer below"),
        (lambda e: e["chains"].update({"": ["Dense"]}), "malformed"),
        (lambda e: e["chains"].pop("shortcut"), "shortcut.0.weight should have shape None"),
        (lambda e: e["chains"].update(other=e["chains"].pop("shortcut")), "it has no chain 'other'"),
        (lambda e: e["chains"].update(other=[{"again": 1}]), "it has no chain 'other'"),
        (lambda e: e["config"].update(shortcut=3), "malformed"),
        (lambda e: e.update(type="Network"), "no or an unknown 'layers'"),
        (lambda e: e.update(type="Dense"), "malformed"),
        (lambda e: e["chains"][""][0]["config"].update(n_out=4), "malformed"),
        (nested, "nest too deep"),
    ],
)  # fmt: skip
def test_hostile_files(tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    with pytest.raises(gm.FileError, match=match):
        gm.load(in_a_file(tmp_path / "net.safetensors", change))


# -- description ---------------------------------------------------------------------------------------------


def test_summary_and_representation() -> None:
    net = network((6, 5, 2), block(2, 4, 2), gm.Residual(gm.Conv2d(4, 4, 1), name="r"), dtype="float32")
    assert repr(net[1]) == "Residual(Conv2d(4, 4, 1), name='r')"
    assert repr(net[0]).endswith(
        "shortcut=[Conv2d(2, 4, 1, stride=2, bias=False), BatchNorm(4)], activation=relu)"
    )
    lines = net.summary().splitlines()
    assert [line.split()[0] for line in lines[2:-2]] == [
        *("0.0", "0.1", "0.2", "0.3", "0.shortcut.0", "0.shortcut.1", "0", "r.0", "r")
    ]
    for row in ("Residual(activation=relu)", "Residual(name='r')", "(N, 3, 3, 4)"):
        assert row in net.summary()
    total = 2 * 4 * 9 + 8 + 4 * 4 * 9 + 8 + 2 * 4 + 8 + 4 * 4 + 4
    assert f"{total:,} parameters" in lines[-1] and sum(p.size for p in net.parameters()) == total
    pixels = 3 * 3
    assert net.flops() == 2 * pixels * (2 * 4 * 9 + 4 * 4 * 9 + 2 * 4 + 4 * 4)
    assert net.output_shape() == (3, 3, 4)
    assert net[0].output_shape((8, 8, 2)) == (4, 4, 4)
    described = gm.Network([gm.Residual(gm.Dense(None, 3))])
    assert "Residual()" in described.summary() and described.input_shape is None
    assert described.predict(np.ones((2, 3))).shape == (2, 3)


def test_slices_share_the_branches() -> None:
    net = everything()
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 2)).astype(np.float32)
    front, back = net[:3], net[3:]
    assert back.input_shape == (6, 5, 4)
    np.testing.assert_array_equal(back.predict(front.predict(x)), net.predict(x))
    before = weights(net)
    back.fit(front.predict(x), LABELS, loss="cross_entropy", epochs=1)
    assert weights(net) != before
    np.testing.assert_array_equal(back.predict(front.predict(x)), net.predict(x))


def test_frozen_branches_stay(isa: str) -> None:
    x = points((4, 5, 4, 2)).astype(np.float32)
    for freeze, moving in (
        (lambda r: setattr(r, "trainable", False), ()),
        (lambda r: setattr(r._chains["shortcut"]._layers[0], "trainable", False), ("0.0.weight",)),
        (lambda r: setattr(r._chains[""]._layers[0], "trainable", False), ("0.shortcut.0.weight",)),
    ):
        around = gm.Residual(gm.Conv2d(2, 4, 1), gm.BatchNorm(4), shortcut=gm.Conv2d(2, 4, 1))
        net = network((5, 4, 2), around, gm.GlobalAvgPool2d(), gm.Dense(4, 3), dtype="float32")
        freeze(around)
        before = net.state_dict()
        net.fit(x, LABELS, loss="cross_entropy", epochs=2, optimizer=gm.SGD(0.1))
        after = net.state_dict()
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        kernels = {name for name in moved if name.startswith("0.") and before[name].ndim == 4}
        assert kernels == set(moving)
        assert ("0.1.running_mean" in moved) == bool(moving)
        assert "2.weight" in moved
    assert "frozen" in net.summary()


def test_state_declared_before_a_parameter_freezes_nothing() -> None:
    class Shift(gm.Layer):
        def build(self, input_shape: tuple[int, ...]) -> None:
            self.add_state("count", (1,))
            self.add_parameter("shift", input_shape)

        def forward(self, x: Array) -> Array:
            return x + self.shift

        def backward(self, dy: Array) -> Array:
            self.shift.grad += dy.sum(axis=0)
            return dy

    net = network((2,), gm.Residual(Shift()))
    assert [(name, on) for name, _, on in net.segments()] == [("0.0.count", False), ("0.0.shift", True)]
    net.fit(points((4, 2)), points((4, 2), seed=1), loss="mse", optimizer=gm.SGD(0.1), epochs=1)
    assert net.state_dict()["0.0.shift"].any()


def test_structure_changes_are_seen() -> None:
    net = network((2,), gm.Residual(gm.Dense(2, 2)))
    x = points((3, 2))
    z = net.predict(x)
    net[0].activation = "relu"
    np.testing.assert_array_equal(net.predict(x), np.maximum(z, 0))
    net[0]._chains[""]._layers[0].activation = "tanh"
    assert not np.array_equal(net.predict(x), np.maximum(z, 0))
    assert net[0].output_activation() == "relu"


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.Residual(), ValueError, "Residual: it needs at least one layer"),
        (lambda: gm.Residual(gm.Dense(2, 2), shortcut=[]), ValueError, "Residual: shortcut: it needs"),
        (lambda: gm.Residual("relu"), TypeError, "Residual: layer 0 is 'relu'; expected a Layer"),
        (lambda: gm.Residual([gm.Dense(2, 2)]), TypeError, "Residual: layer 0 is [Dense"),
        (lambda: gm.Residual(gm.Dense(2, 2), shortcut=3), TypeError, "shortcut: layers must be a list"),
        (lambda: gm.Residual(gm.Dense(2, 2), shortcut=["x"]), TypeError, "shortcut: layer 0 is 'x'"),
        (lambda: gm.Residual(gm.Dense(2, 2, name="shortcut")), ValueError, "a layer is called 'shortcut'"),
        (lambda: gm.Residual(gm.Dense(2, 2, name="a.b")), ValueError, "layer name 'a.b' must be a string"),
        (lambda: gm.Residual(gm.Dense(2, 2, name="a"), gm.Dense(2, 2, name="a")), ValueError,
         "Residual: two layers are called 'a'"),
        (lambda: gm.Residual(gm.Dense(2, 2), activation="rely"), ValueError, "unknown activation 'rely'"),
        (lambda: gm.Residual(gm.Dense(2, 2), activation="relu", slope=2.0), ValueError, "slope"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (gm.Residual(gm.Conv2d(2, 3, 1)),
         "residual: the layers make (N, 6, 5, 3) of (N, 6, 5, 2), the shortcut (N, 6, 5, 2); give a"),
        (gm.Residual(gm.Conv2d(2, 2, 3)), "the layers make (N, 4, 3, 2) of"),
        (gm.Residual(gm.Conv2d(2, 1, 1)), "the layers make (N, 6, 5, 1) of"),  # no broadcasting
        (gm.Residual(gm.Conv2d(2, 4, 1), shortcut=gm.Conv2d(2, 4, 1, stride=2)), "the shortcut (N, 3, 3, 4)"),
        (gm.Residual(gm.Conv2d(3, 2, 1)), "Conv2d: x (N, 6, 5, 2) has 2 channels, n_in is 3"),
        (gm.Residual(gm.Conv2d(2, 4, 1), shortcut=gm.Dense(2, 4)), "dense: x has shape (N, 6, 5, 2)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(layer: gm.Layer, message: str) -> None:
    with pytest.raises(gm.ShapeError) as caught:
        network((6, 5, 2), layer)
    assert message in str(caught.value)
    assert "_segments" in vars(layer) and not layer._segments  # nothing was declared


def test_a_python_layer_has_one_place(isa: str) -> None:
    twice = Doubling()
    with pytest.raises(ValueError, match=r"Doubling\(\) occurs twice"):
        network((2,), gm.Residual(twice, shortcut=twice)).predict(np.ones((1, 2)))
