"""PyTorch's weights in gemmule's order: what `gemmule.io.load_torch` does.

convolution   (O, I / g, k_h, k_w) -> (O, k_h, k_w, I / g), transposed convolutions alike
in 1-d        (O, I / g, k) -> (O, 1, k, I / g)
behind a Flatten of images: features (C, H, W) -> (H, W, C)
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _safetensors, building
from .arrays import Array, Shape, any_array, real_array, shown
from .errors import FileError, ShapeError
from .layers import BatchNorm, Conv1d, Conv2d, Dense, Flatten, Layer, LayerNorm
from .layers.container import Branches, Chain
from .network import Network
from .parameters import Segment

Rename = Callable[[str], str] | Mapping[str, str]

_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, which needs it for momentum=None alone
_SHORTCUTS = ("downsample", "shortcut")  # PyTorch's ResNets', gemmule's
_FOLLOWED = (Dense, BatchNorm, LayerNorm)  # have numbers of each feature, in whatever order
_MOST_NAMES = 5  # in a message


class _Place(NamedTuple):
    """Where a tensor belongs. shape: PyTorch's; turn: makes gemmule's array of its."""

    segment: Segment
    shape: Shape
    turn: Callable[[Array], Array]


_Walked = tuple[list[tuple[str, _Place]], Shape | None]


def load(network: Network, source: Any, rename: Rename | None) -> None:
    """Check everything, then copy; see `gemmule.io.load_torch`."""
    shape = building.require_built(network)
    tensors = _read(source)
    places = dict(_chain(network, "", shape)[0])
    found = _named(tensors, places, rename)
    _check_names(places, found)
    written: dict[int, tuple[str, Array]] = {}
    for name, (theirs, value) in found.items():
        array = _turned(places[name], theirs, _plain(value, theirs))
        earlier = written.setdefault(id(places[name].segment), (theirs, array))
        if not np.array_equal(earlier[1], array, equal_nan=True):
            raise ValueError(
                f"load_torch: {earlier[0]} and {theirs} differ, the network has one array for both"
            )
    for name in found:
        segment = places[name].segment
        segment.values[...] = written[id(segment)][1]


# -- what is given -------------------------------------------------------------------------------------------


def _read(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"load_torch: source must be the path of a safetensors file or a mapping, not {source!r}"
        )
    tensors, metadata = _safetensors.read(source)
    if "gemmule" in metadata:
        raise FileError(
            f"{Path(source)}: a file of gemmule's own, with weights in its order; gm.load reads it"
        )
    return tensors


def _named(
    tensors: Mapping[str, Any], places: Mapping[str, _Place], rename: Rename | None
) -> dict[str, tuple[str, Any]]:
    """{the network's name: (PyTorch's, tensor)}."""
    found: dict[str, tuple[str, Any]] = {}
    for theirs, value in tensors.items():
        if not isinstance(theirs, str):
            raise TypeError(f"load_torch: source has the name {theirs!r}, which is no string")
        name = _renamed(theirs, rename)
        if name not in places:
            if name.rpartition(".")[2] == _COUNTER:
                continue
            name = ".".join(_SHORTCUTS[1] if part == _SHORTCUTS[0] else part for part in name.split("."))
        if name in found:
            raise ValueError(f"load_torch: {found[name][0]} and {theirs} both become {name}")
        found[name] = theirs, value
    return found


def _renamed(name: str, rename: Rename | None) -> str:
    if rename is None:
        return name
    if not isinstance(rename, Mapping):
        return _checked_name(rename(name), name)
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        start = ".".join(parts[:count])
        if start in rename:
            new = _checked_name(rename[start], start)
            return ".".join([*([new] if new else []), *parts[count:]])
    return name


def _checked_name(new: Any, name: str) -> str:
    if not isinstance(new, str):
        raise TypeError(f"load_torch: rename makes {new!r} of {name!r}, which is no string")
    return new


def _plain(value: Any, name: str) -> Array:
    """A tensor as an array; its type is no concern here."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy lacks
            value = value.float()
        value = value.numpy()
    return any_array(value, f"load_torch: {name}")


# -- where it belongs ----------------------------------------------------------------------------------------


def _chain(chain: Chain, prefix: str, shape: Shape, flat: Shape | None = None) -> _Walked:
    """The places within, and `flat` behind it: the image (..., C) that the features are, where they are one.

    Goes along the data: a layer's input tells what the features behind a Flatten were."""
    places: list[tuple[str, _Place]] = []
    for key, layer in zip(chain._keys, chain._layers, strict=True):
        name = f"{prefix}{key}."
        if isinstance(layer, Chain):
            inner, flat = _chain(layer, name, shape, flat)
            places += inner
        elif isinstance(layer, Branches):
            _require_order(layer, name, flat)
            for start, branch in layer.chains():
                places += _chain(branch, name + start, shape)[0]
        else:
            for own, segment in layer._segments.items():
                if not isinstance(layer, _FOLLOWED):
                    _require_order(layer, name, flat)
                places.append((name + own, _place(layer, own, segment, flat)))
            if isinstance(layer, Flatten):
                flat = shape if len(shape) > 1 and _reorders(shape) else flat
            elif not layer.keeps_shape:
                flat = None
        shape = layer.output_shape(shape)
    return places, flat


def _require_order(layer: Layer, name: str, flat: Shape | None) -> None:
    if flat is not None:
        raise ValueError(
            f"load_torch: {name[:-1]}, {type(layer).__name__}, is behind a Flatten of {shown(flat)}, and "
            "PyTorch's order of features, channels first, is not followed through it; put a Dense between"
        )


def _place(layer: Layer, name: str, segment: Segment, flat: Shape | None) -> _Place:
    shape = segment.shape
    if isinstance(layer, Conv1d) and name == "weight":
        return _Place(segment, (shape[0], *_first(shape[2:])), lambda a: a.transpose(0, 2, 1)[:, None])
    if isinstance(layer, Conv2d) and name == "weight":
        return _Place(segment, (shape[0], *_first(shape[1:])), lambda a: a.transpose(0, 2, 3, 1))
    if isinstance(layer, LayerNorm) and len(shape) > 1:  # over images
        return _Place(segment, _first(shape), lambda a: np.moveaxis(a, 0, -1))
    # Columns of a dense layer, or what a normalization has of each feature.
    if flat is not None and (name == "weight" or not isinstance(layer, Dense)):
        return _Place(segment, shape, lambda a: _features(a, flat))
    return _Place(segment, shape, lambda a: a)


def _first(shape: Shape) -> Shape:
    """(..., C) -> (C, ...)."""
    return (shape[-1], *shape[:-1])


def _reorders(flat: Shape) -> bool:
    return flat[-1] > 1 and any(size > 1 for size in flat[:-1])


def _features(array: Array, flat: Shape) -> Array:
    """The last axis from (C, H, W) to (H, W, C)."""
    images = array.reshape(*array.shape[:-1], *_first(flat))
    return np.moveaxis(images, array.ndim - 1, -1).reshape(array.shape)


# -- whether it fits -----------------------------------------------------------------------------------------


def _check_names(places: Mapping[str, _Place], found: Mapping[str, tuple[str, Any]]) -> None:
    """What is shared may be given under one of its names alone."""
    given = {id(places[name].segment) for name in found if name in places}
    missing = [name for name, place in places.items() if id(place.segment) not in given]
    unexpected = [theirs for name, (theirs, _) in found.items() if name not in places]
    if missing or unexpected:
        raise ValueError(f"load_torch: missing {_listed(missing)}; unexpected {_listed(unexpected)}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more or "none"


def _turned(place: _Place, name: str, array: Array) -> Array:
    if array.shape != place.shape:
        raise ShapeError(f"load_torch: {name} has shape {array.shape}; the network takes {place.shape}")
    return real_array(place.turn(array), place.segment.placed.dtype, f"load_torch: {name}")
