"""Model files: safetensors, with the architecture as JSON in the metadata.

    gemmule         format version, "1"
    network         {dtype, input_shape, key, step, loss, layers}
    preprocessing   `Network.preprocessing`

A layer is {type, config, name, trainable}; one that occurs again is {"again": n}, the n-th described. Nothing
in a file is executed: classes and functions of the user's own are looked up by name in `load(custom=...)`.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from . import _safetensors, building, losses
from .activations import DEFAULT_SLOPES, Builtin, Custom
from .activations import resolve as resolve_activation
from .arrays import Array, Shape, any_array
from .errors import FileError
from .layers import Activation, Dense, Dropout, Flatten, Layer
from .network import Network

FORMAT_VERSION = 1
_DEPTH = 64  # of networks in networks
_LAYERS: dict[str, type[Layer]] = {cls.__name__: cls for cls in (Dense, Activation, Dropout, Flatten)}

CustomObjects = Mapping[str, Callable[..., Any]]
Path = str | os.PathLike[str]


def save(network: Network, path: Path) -> None:
    """Write a network; see `Network.save`."""
    shape = building.require_built(network)
    described = {
        "dtype": network.dtype,
        "input_shape": list(shape),
        "key": network._key,
        "step": network._step,
        "loss": None if network.loss is None else _loss_entry(network.loss),
        "layers": _layer_entries(network, {}),
        "trainable": network.trainable,
    }
    try:
        preprocessing = json.dumps(network.preprocessing, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: net.preprocessing must hold what JSON can ({error})") from error
    metadata = {
        "gemmule": str(FORMAT_VERSION),
        "network": json.dumps(described, allow_nan=False),
        "preprocessing": preprocessing,
    }
    _safetensors.write(path, dict(network.state_dict()), metadata)


def load(path: Path, custom: CustomObjects | None = None) -> Network:
    """Read a network that `Network.save` wrote.

    custom: the user's own functions and layer classes by the names they were saved under, {"scaled_tanh": f}.
    FileError where the file is malformed, not gemmule's, or from a later format; ValueError where `custom`
    lacks a name."""
    tensors, metadata = _safetensors.read(path)
    if "gemmule" not in metadata or "network" not in metadata:
        raise FileError(
            f"{path}: no gemmule architecture in it; gm.io.load_tensors reads the weights for load_state_dict"
        )
    if metadata["gemmule"] != str(FORMAT_VERSION):
        raise FileError(
            f"{path}: format version {metadata['gemmule'][:20]!r}; this gemmule reads up to {FORMAT_VERSION}"
        )
    try:
        described = json.loads(metadata["network"])
        preprocessing = json.loads(metadata.get("preprocessing", "{}"))
        network = _network(described, _Reader(custom or {}))
        if not isinstance(preprocessing, dict):
            raise _MalformedError("preprocessing is not an object")
        _fill(network, building.checked_shape(described["input_shape"]), tensors)
    except MissingCustomError:
        raise
    except (
        _MalformedError,
        KeyError,
        ValueError,
        TypeError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as error:
        raise FileError(f"{path}: the architecture in it is malformed: {error!r}") from error
    network.preprocessing = preprocessing
    return network


def load_tensors(path: Path) -> dict[str, Array]:
    """The tensors of any safetensors file, by name; FileError where it is malformed."""
    return _safetensors.read(path)[0]


def save_tensors(path: Path, tensors: Mapping[str, ArrayLike]) -> None:
    """Write arrays to a safetensors file, whole or not at all."""
    _safetensors.write(path, {name: any_array(value, name) for name, value in tensors.items()}, {})


class MissingCustomError(ValueError):
    """`load(custom=...)` lacks a function or class that the file names."""


class _MalformedError(ValueError):
    pass


# -- writing -------------------------------------------------------------------------------------------------


def _layer_entries(network: Network, seen: dict[int, int]) -> list[dict[str, Any]]:
    entries = []
    for layer in network.layers:
        if id(layer) in seen:
            entries.append({"again": seen[id(layer)]})
            continue
        seen[id(layer)] = len(seen)
        entry: dict[str, Any] = {
            "type": type(layer).__name__,
            "name": layer.name,
            "trainable": layer.trainable,
        }
        if isinstance(layer, Network):
            entry |= {"type": "Network", "layers": _layer_entries(layer, seen)}
        else:
            if _LAYERS.get(type(layer).__name__) is not type(layer):
                entry |= {"type": _importable(type(layer), "class"), "custom": True}
            entry["config"] = {key: _value_entry(value) for key, value in layer.config().items()}
        entries.append(entry)
    return entries


def _value_entry(value: Any) -> Any:
    if isinstance(value, Builtin):
        return {"activation": value.name, "slope": value.slope}
    if isinstance(value, Custom):
        return {"functions": [_importable(value.f, "function"), _importable(value.df, "function")]}
    return value


def _importable(thing: Any, what: str) -> str:
    """The name of a user's function or class; TypeError for lambdas and what else has none."""
    name = getattr(thing, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(
            f"save: {thing!r} has no name to be found by. Define it with `def` under a name of its own, then "
            f"load the file with load(custom={{'name': {what}}})"
        )
    return name


def _loss_entry(loss: losses.Loss) -> dict[str, Any]:
    if losses.CLASSES.get(loss.name) is not type(loss):
        raise TypeError(f"save: {loss!r} is not one of gemmule.losses")
    return {"name": loss.name, "config": loss.config()}


# -- reading -------------------------------------------------------------------------------------------------


class _Reader:
    """Makes layers from their descriptions."""

    def __init__(self, custom: CustomObjects) -> None:
        self._custom = custom
        self._made: list[Layer | None] = []

    def layers(self, entries: Any, dtype: str, depth: int) -> list[Layer]:
        if not isinstance(entries, list) or depth > _DEPTH:
            raise _MalformedError("layers nest too deep or are not a list")
        return [self._layer(entry, dtype, depth) for entry in entries]

    def _layer(self, entry: dict[str, Any], dtype: str, depth: int) -> Layer:
        if "again" in entry:
            layer = self._made[_index(entry["again"], len(self._made))]
            if layer is None:
                raise _MalformedError("a network contains itself")
            return layer
        place = len(self._made)
        self._made.append(None)
        if entry["type"] == "Network":
            layer = _undeclared(self.layers(entry["layers"], dtype, depth + 1), dtype, name=entry["name"])
        else:
            config = {str(key): self._value(value) for key, value in entry["config"].items()}
            cls = self._find(entry["type"]) if entry.get("custom") else _LAYERS[entry["type"]]
            layer = cls(**config)
            if not isinstance(layer, Layer):
                raise MissingCustomError(f"load: custom[{entry['type']!r}] is not a Layer class")
            layer.name = entry["name"]
        layer.trainable = bool(entry["trainable"])
        self._made[place] = layer
        return layer

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict) and "activation" in value:
            name = value["activation"]
            return resolve_activation(name, value["slope"] if name in DEFAULT_SLOPES else None)
        if isinstance(value, dict) and "functions" in value:
            f, df = value["functions"]
            return Custom(self._find(f), self._find(df))
        return value

    def _find(self, name: Any) -> Callable[..., Any]:
        if name not in self._custom:
            raise MissingCustomError(
                f"load: the file needs {name!r}, which is your own: load(custom={{{name!r}: ...}})"
            )
        return self._custom[name]


def _network(described: dict[str, Any], reader: _Reader) -> Network:
    """The network without memory."""
    layers = reader.layers(described["layers"], described["dtype"], 0)
    key, step = (_index(described[name], 2**64) for name in ("key", "step"))
    network = _undeclared(layers, described["dtype"], rng=building.PhiloxKey(key))
    network.trainable = bool(described["trainable"])
    network._step = step
    if described["loss"] is not None:
        network.loss = losses.CLASSES[described["loss"]["name"]](**described["loss"]["config"])
    return network


def _undeclared(layers: list[Layer], dtype: str, **options: Any) -> Network:
    """A network that does not build itself: sizes in a file are claims until its tensors bear them out."""
    network = Network.__new__(Network)
    network._describe(layers, dtype=dtype, **options)
    return network


def _fill(network: Network, input_shape: Shape, tensors: dict[str, Array]) -> None:
    with building.Declared(network, input_shape) as fresh:
        declared = {name: segment.shape for name, segment, _ in network._walk("", True, set())}
        found = {name: array.shape for name, array in tensors.items()}
        if declared != found:
            name = next(name for name in {**declared, **found} if declared.get(name) != found.get(name))
            raise _MalformedError(
                f"{name} should have shape {declared.get(name)}, the tensor has {found.get(name)}"
            )
        building.allocate(network, fresh, initial=False)
    network.load_state_dict(tensors)


def _index(value: Any, count: int) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise _MalformedError(f"{value!r} is not an integer below {count}")
    return value
