"""Model files that describe what no network is, and networks that no file can describe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, Doubling

import gemmule as gm
from gemmule import _safetensors

RELU = {
    "type": "Activation",
    "name": None,
    "trainable": True,
    "config": {"function": {"activation": "relu", "slope": 1.0}},
}


def described_as(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A model file whose architecture was changed behind gemmule's back."""
    gm.Network([gm.Dense(4, 3), gm.Activation("relu")], rng=0).save(path)
    tensors, metadata = _safetensors.read(path)
    described = json.loads(metadata["network"])
    change(described)
    _safetensors.write(path, tensors, {**metadata, "network": json.dumps(described)})
    return path


def twice(depth: int, number: int = 2) -> dict[str, Any]:
    """A network that holds the same network twice, that one another twice, and so on; `number` is its own."""
    if depth == 0:
        return RELU
    inner = twice(depth - 1, number + 1)
    return {"type": "Network", "name": None, "trainable": True, "layers": [inner, {"again": number + 1}]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["layers"].append(twice(40)), "more than 100000 layers"),
        (lambda d: d["layers"][0].update(type="Conv9"), "unknown 'Conv9'"),
        (lambda d: d["layers"][0]["config"].update(n_out=2**70), "below 2"),
        (lambda d: d["layers"][0]["config"].update(n_out=2**62), "'weight' of shape .* overflows"),
        (lambda d: d["layers"][0]["config"].update(n_out=2**40), r"should have shape \(1099511627776, 4\)"),
        (lambda d: d["layers"].append({"again": 7}), "7 is not an integer below"),
        (lambda d: d.pop("key"), "no or an unknown 'key'"),
        (lambda d: d.update(input_shape=[2**62, 2**62]), "Flatten"),
        (lambda d: d.update(layers=3), "not a list"),
    ],
)
def test_absurd_architectures_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    with pytest.raises(gm.FileError, match=match):
        gm.load(described_as(tmp_path / "net.safetensors", change))


def test_a_network_in_a_network_twice_is_no_bomb_yet(tmp_path: Path) -> None:
    net = gm.load(described_as(tmp_path / "net.safetensors", lambda d: d["layers"].append(twice(5))))
    assert net.predict(np.ones((2, 4), np.float32)).shape == (2, 3)


def scaled(factor: float) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    def f(z: Array) -> Array:
        return factor * z

    def df(z: Array) -> Array:
        return np.full_like(z, factor)

    return f, df


def test_two_functions_of_one_name_are_refused(tmp_path: Path) -> None:
    net = gm.Network([gm.Dense(2, 3, scaled(2)), gm.Dense(3, 1, scaled(3))])
    with pytest.raises(TypeError, match="two of your own are called 'f'"):
        net.save(tmp_path / "net.safetensors")
    pair = scaled(2)
    gm.Network([gm.Dense(2, 3, pair), gm.Dense(3, 1, pair)]).save(tmp_path / "net.safetensors")


def test_a_config_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Odd(Doubling):
        def config(self) -> dict[str, Any]:
            return {"array": np.ones(2)}

    with pytest.raises(TypeError, match=r"config\(\) of a layer"):
        gm.Network([gm.Dense(2, 3), Odd()]).save(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "net.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no such folder.*none/net\.safetensors"):
        gm.Network([gm.Dense(2, 3)]).save(path)
