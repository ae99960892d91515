"""Turning a list of layers into a network with memory."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _layout, initializers
from .arrays import Array, Shape, real_array, shown
from .errors import DTypeError, ShapeError
from .layers.base import Layer, Revision
from .parameters import Block, Segment

if TYPE_CHECKING:
    from .network import Network


class PhiloxKey(int):
    """A key as it is, where `rng` is otherwise a seed."""


# Streams of the network's generator, the second word of NumPy's Philox key.
INIT_STREAM, SPLIT_STREAM, ORDER_STREAM = 0, 1, 2


def philox_key(rng: Any) -> int:
    """The 64-bit key that a network's randomness comes from."""
    if isinstance(rng, PhiloxKey):
        return int(rng)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**64, dtype=np.uint64))
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, int | np.integer)):
        raise TypeError(f"rng must be an integer, a numpy.random.Generator or None, not {rng!r}")
    if rng is not None and rng < 0:
        raise ValueError(f"rng is {rng}; a seed is not negative")
    return int(np.random.SeedSequence(rng).generate_state(1, np.uint64)[0])


def generator(network: "Network", stream: int) -> "np.random.Generator":
    """One of the network's NumPy streams, from its start."""
    return np.random.Generator(np.random.Philox(key=np.array([network._key, stream], np.uint64)))


def order_generator(network: "Network", draw: int) -> "Callable[[int], np.random.Generator]":
    """Streams that draw the order of samples; `draw` and their numbers are places in Philox's counter."""
    key = np.array([network._key, ORDER_STREAM], np.uint64)
    return lambda number: np.random.Generator(
        np.random.Philox(key=key, counter=np.array([0, 0, number, draw], np.uint64))
    )


def require_built(network: "Network") -> Shape:
    """The input shape; RuntimeError where the network has no memory yet."""
    shape = network._built_shape
    if network._stage != "built" or shape is None:
        raise RuntimeError("the network is not built yet: give input_shape=, the first layer's n_in, or data")
    return shape


def build(network: "Network", input_shape: Shape) -> None:
    """Give every layer that has none its memory and initial values."""
    with Declared(network, input_shape) as fresh:
        if fresh:  # another thread may have been quicker
            allocate(network, fresh, initial=True)


_BUILDING = threading.RLock()  # one for all networks: they share layers


class Declared:
    """Declares all parameters of a network; inside the `with`, the layers that are new. Undone by an
    exception. One thread at a time builds."""

    def __init__(self, network: "Network", input_shape: Shape) -> None:
        self._network, self._input_shape = network, input_shape
        self._fresh: list[Layer] = []

    def __enter__(self) -> list[Layer]:
        _BUILDING.acquire()
        try:
            self._network._declare(self._input_shape, self._fresh)
        except BaseException:
            self._undo()
            _BUILDING.release()
            raise
        return self._fresh

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self._undo()
        _BUILDING.release()

    def _undo(self) -> None:
        for layer in self._fresh:
            layer._segments.clear()
            layer._stage = "described"


def allocate(network: "Network", fresh: list[Layer], *, initial: bool) -> None:
    """Place the parameters of `fresh` layers in one block and their state in another, with initial values or
    zeros."""
    segments: dict[int, tuple[str, Segment]] = {}
    for name, segment, _ in network._walk("", True, set()):
        if segment.block is None:
            segments[id(segment)] = name, segment
        elif segment.block.dtype != network.dtype:
            raise DTypeError(f"Network: {name} is {segment.block.dtype}, the network {network.dtype}")
    named = list(segments.values())
    values = _initial_values(network, named) if initial else [np.float64(0)] * len(named)
    blocks = {
        is_state: Block(network.dtype, [segment.size for _, segment in named if segment.is_state == is_state])
        for is_state in {segment.is_state for _, segment in named}
    }
    counts = dict.fromkeys(blocks, 0)
    for (_, segment), value in zip(named, values, strict=True):
        segment.block, segment.index = blocks[segment.is_state], counts[segment.is_state]
        counts[segment.is_state] += 1
        segment.values[...] = value
    for layer in fresh:
        layer._stage = "built"
    Revision.count += 1


def _initial_values(network: "Network", segments: list[tuple[str, Segment]]) -> list[Array]:
    rng = generator(network, INIT_STREAM)
    drawn = [initializers.draw(segment.init, segment.shape, rng, name) for name, segment in segments]
    return [real_array(value, network.dtype, name) for value, (name, _) in zip(drawn, segments, strict=True)]


def shape_conflict(network: "Network", input_shape: Shape) -> ShapeError:
    """The error for a built network that gets another input shape."""
    return ShapeError(
        f"network: x has shape {shown(input_shape)}, it takes {shown(network._inner_shape or ())}"
    )


def sliced(network: "Network", index: slice) -> "Network":
    """A network of some of the layers, sharing parameters, random key and, where consecutive, the input
    shape."""
    from .network import Network

    layers = network.layers[index]
    shape: Shape | None = None
    if network._stage == "built" and layers and index.step in (None, 1):
        shape = network.built_input_shape
        for layer in network.layers[: index.indices(len(network))[0]]:
            shape = layer.output_shape(shape)
    return Network(
        layers,
        input_shape=None if shape is None else _layout.outside(network, shape),
        dtype=network.dtype,
        rng=PhiloxKey(network._key),
        layout=network.layout,
    )


def load_state(parameters: Mapping[str, Array], state: Mapping[str, ArrayLike], strict: bool) -> None:
    """Check everything, then copy."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict: state must map names to arrays, not {type(state).__name__}")
    missing = [name for name in parameters if name not in state]
    unexpected = [name for name in state if name not in parameters]
    if strict and (missing or unexpected):
        raise ValueError(f"load_state_dict: missing {missing or 'none'}, unexpected {unexpected or 'none'}")
    arrays: dict[str, Array] = {}
    for name, parameter in parameters.items():
        if name in state:
            arrays[name] = real_array(state[name], parameter.dtype.name, name)
            if arrays[name].shape != parameter.shape:
                raise ShapeError(
                    f"load_state_dict: {name} has shape {parameter.shape}, got {arrays[name].shape}"
                )
    for name, array in arrays.items():
        parameters[name][...] = array
