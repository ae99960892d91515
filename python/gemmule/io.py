"""Model files: safetensors, with the architecture as JSON in the metadata.

    gemmule         format version, "1"
    network         {dtype, input_shape, key, step, loss, layers, trainable, layout}
    preprocessing   `Network.preprocessing`

input_shape is channels-last, whatever the layout. A layer is {type, config, name, trainable}, and where it is
made of layers has them in "layers", or by name in "chains"; one that occurs again is {"again": n}, the n-th
described. Nothing in a file is executed: classes and functions of the user's own are looked up by name in
`load(custom=...)`.
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
from .layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool2d,
    Residual,
    Upsample,
    ZeroPad2d,
)
from .layers.base import checked_shape
from .layers.container import Branches, Chain
from .network import Network

FORMAT_VERSION = 1
TRAINING_PREFIX = "training/"  # of the tensors that a checkpoint holds beside the model's
_DEPTH = 64  # of networks in networks
_MOST_LAYERS = 100_000  # "again" lets a short file describe any number
_BUILT_IN = (
    Dense, Conv2d, Conv1d, ConvTranspose2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, AdaptiveAvgPool2d,
    BatchNorm, GroupNorm, LayerNorm, Activation, Dropout, Dropout2d, Flatten, Upsample, ZeroPad2d,
)  # fmt: skip
_BRANCHES: dict[str, type[Branches]] = {"Residual": Residual, "Concat": Concat}
_LAYERS: dict[str, type[Layer]] = {cls.__name__: cls for cls in _BUILT_IN}
_LAYERS |= _BRANCHES

CustomObjects = Mapping[str, Callable[..., Any]]
Path = str | os.PathLike[str]


def save(network: Network, path: Path) -> None:
    """Write a network; see `Network.save`."""
    _safetensors.write(path, *contents(network))


def contents(network: Network) -> tuple[dict[str, Array], dict[str, str]]:
    """(tensors, metadata) of its model file; TypeError for what cannot be saved."""
    shape = building.require_built(network)
    writer = _Writer()
    described = {
        "dtype": network.dtype,
        "input_shape": list(shape),
        "key": network._key,
        "step": network._step,
        "loss": None if network.loss is None else writer.loss(network.loss),
        "layers": writer.layers(network),
        "trainable": network.trainable,
        "layout": network.layout,
    }
    metadata = {
        "gemmule": str(FORMAT_VERSION),
        "network": _json(described, "what config() of a layer returns"),
        "preprocessing": _json(network.preprocessing, "net.preprocessing"),
    }
    return network.state_dict(), metadata


def load(path: Path, custom: CustomObjects | None = None) -> Network:
    """Read a network that `Network.save` or a `gm.callbacks.Checkpoint` wrote.

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
        model = {name: array for name, array in tensors.items() if not name.startswith(TRAINING_PREFIX)}
        _fill(network, checked_shape(described["input_shape"], "input_shape"), model)
    except MissingCustomError:
        raise
    except KeyError as error:
        raise FileError(f"{path}: the architecture in it has no or an unknown {error}") from error
    except (ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise FileError(f"{path}: the architecture in it is malformed: {error}") from error
    network.preprocessing = preprocessing
    return network


def load_tensors(path: Path) -> dict[str, Array]:
    """The tensors of any safetensors file, by name; FileError where it is malformed."""
    return _safetensors.read(path)[0]


def save_tensors(path: Path, tensors: Mapping[str, ArrayLike]) -> None:
    """Write arrays to a safetensors file, whole or not at all."""
    _safetensors.write(path, {name: any_array(value, name) for name, value in tensors.items()}, {})


def load_torch(
    network: Network,
    source: Path | Mapping[str, Any],
    rename: Callable[[str], str] | Mapping[str, str] | None = None,
) -> None:
    """Give a network the weights of a PyTorch module: the names are those of its `state_dict`, the arrays are
    turned to gemmule's order.

    source: a safetensors file, or a mapping of names to arrays or tensors; PyTorch is not needed.
    rename: a function from PyTorch's names to the network's, or a mapping of names, or of what they begin
        with before a dot: {"fc": "head", "features.3": "features.1"}. Where PyTorch counts activations as
        layers, gemmule's indices are smaller.

    Filters (O, I / g, k_h, k_w) become (O, k_h, k_w, I / g), those of `Conv1d` alike, and the features of
    images behind `Flatten` go from (C, H, W) to (H, W, C) in what comes next. "downsample" in a name is
    "shortcut" where the network has no such name, and num_batches_tracked is left out. Of what is shared, one
    name suffices. Before anything is written: ValueError for names that are missing or unexpected, ShapeError
    for another shape, FileError for files of other formats; RuntimeError where the network is not built."""
    from . import _torch_weights

    _torch_weights.load(network, source, rename)


class MissingCustomError(ValueError):
    """`load(custom=...)` lacks a function or class that the file names."""


class _MalformedError(ValueError):
    pass


# -- writing -------------------------------------------------------------------------------------------------


class _Writer:
    """Describes layers."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # id of a layer: its number
        self._custom: dict[str, Any] = {}

    def layers(self, chain: Chain) -> list[dict[str, Any]]:
        return [self._layer(layer) for layer in chain._layers]

    def loss(self, loss: losses.Loss) -> dict[str, Any]:
        if type(loss) is losses.Custom:
            functions = [self._named(f, "function") for f in (loss.value, loss.gradient)]
            return {"name": loss.name, "functions": functions}
        if losses.CLASSES.get(loss.name) is not type(loss):
            raise TypeError(f"save: {loss!r} is not one of gemmule.losses")
        return {"name": loss.name, "config": loss.config()}

    def _layer(self, layer: Layer) -> dict[str, Any]:
        if id(layer) in self._seen:
            return {"again": self._seen[id(layer)]}
        self._seen[id(layer)] = len(self._seen)
        entry: dict[str, Any] = {
            "type": type(layer).__name__,
            "name": layer.name,
            "trainable": layer.trainable,
        }
        if isinstance(layer, Branches):
            entry["chains"] = {name: self.layers(chain) for name, chain in layer._chains.items()}
        if isinstance(layer, Network):
            layout = {} if layer.layout == "channels_last" else {"layout": layer.layout}
            return entry | {"type": "Network", "layers": self.layers(layer)} | layout
        if _LAYERS.get(type(layer).__name__) is not type(layer):
            entry |= {"type": self._named(type(layer), "class"), "custom": True}
        return entry | {"config": {key: self._value(value) for key, value in layer.config().items()}}

    def _value(self, value: Any) -> Any:
        if isinstance(value, Builtin):
            return {"activation": value.name, "slope": value.slope}
        if isinstance(value, Custom):
            return {"functions": [self._named(value.f, "function"), self._named(value.df, "function")]}
        return value

    def _named(self, thing: Any, what: str) -> str:
        """The name of a user's function or class; TypeError for lambdas and what else has none of its own."""
        name = getattr(thing, "__name__", None)
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(
                f"save: {thing!r} has no name to be found by. Define it with `def` under a name of its own, "
                f"then load the file with load(custom={{'name': {what}}})"
            )
        if self._custom.setdefault(name, thing) is not thing:
            raise TypeError(
                f"save: two of your own are called {name!r}; load(custom=...) needs a name for each"
            )
        return name


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"save: {what} must hold what JSON can: {error}") from error


# -- reading -------------------------------------------------------------------------------------------------


class _Reader:
    """Makes layers from their descriptions."""

    def __init__(self, custom: CustomObjects) -> None:
        self._custom = custom
        self._made: list[tuple[Layer, int] | None] = []  # with the layers in it; None while a network is made
        self._count = 0  # of layers, those made again counted again

    def layers(self, entries: Any, dtype: str, depth: int) -> list[Layer]:
        if not isinstance(entries, list) or depth > _DEPTH:
            raise _MalformedError("layers nest too deep or are not a list")
        return [self._layer(entry, dtype, depth) for entry in entries]

    def loss(self, entry: dict[str, Any]) -> losses.Loss:
        if entry["name"] == losses.Custom.name:
            value, gradient = entry["functions"]
            return losses.Custom(self._find(value), self._find(gradient))
        return losses.CLASSES[entry["name"]](**entry["config"])

    def _layer(self, entry: dict[str, Any], dtype: str, depth: int) -> Layer:
        if "again" in entry:
            made = self._made[_index(entry["again"], len(self._made))]
            if made is None:
                raise _MalformedError("a network contains itself")
            self._add(made[1])
            return made[0]
        place, before = len(self._made), self._count
        self._made.append(None)
        self._add(1)
        if entry["type"] == "Network":
            inner = self.layers(entry["layers"], dtype, depth + 1)
            layer: Layer = _undeclared(inner, dtype, name=entry["name"], layout=_layout_in(entry))
        else:
            chains = entry.get("chains", {})
            parts = {str(key): self.layers(value, dtype, depth + 1) for key, value in chains.items()}
            layer = self._described(entry, parts)
            layer.name = entry["name"]
        layer.trainable = bool(entry["trainable"])
        self._made[place] = layer, self._count - before
        return layer

    def _add(self, count: int) -> None:
        self._count += count
        if self._count > _MOST_LAYERS:
            raise _MalformedError(f"more than {_MOST_LAYERS} layers")

    def _described(self, entry: dict[str, Any], chains: dict[str, list[Layer]]) -> Layer:
        config = {str(key): self._value(value) for key, value in entry["config"].items()}
        if entry["type"] in _BRANCHES:
            return _BRANCHES[entry["type"]]._from_chains(chains, config)
        if not entry.get("custom"):
            return _LAYERS[entry["type"]](**config)
        layer = self._find(entry["type"])(**config)
        if not isinstance(layer, Layer):
            raise MissingCustomError(f"load: custom[{entry['type']!r}] is not a Layer class")
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
    layout = _layout_in(described)
    network = _undeclared(layers, described["dtype"], rng=building.PhiloxKey(key), layout=layout)
    network.trainable = bool(described["trainable"])
    network._step = step
    if described["loss"] is not None:
        network.loss = reader.loss(described["loss"])
    return network


def _layout_in(described: dict[str, Any]) -> Any:
    """Files from before there were images do not say, nor do networks in networks where it is the usual."""
    return described.get("layout", "channels_last")


def _undeclared(
    layers: list[Layer], dtype: str, *, rng: Any = None, name: str | None = None, layout: Any
) -> Network:
    """A network that does not build itself: sizes in a file are claims until its tensors bear them out."""
    network = Network.__new__(Network)
    network._describe(layers, None, dtype, rng, name, layout)
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
