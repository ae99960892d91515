"""What layers made of layers have in common."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from ..arrays import Shape
from ..parameters import Segment
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class Chain(Layer):
    """Layers applied one after the other."""

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable"})
    _layers: tuple[Layer, ...]
    _keys: tuple[str, ...]

    def __init__(self, layers: Iterable[Layer], what: str) -> None:
        self._layers = checked_layers(layers, what)
        self._keys = layer_keys(self._layers, what)

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self._layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def output_activation(self) -> str | None:
        return self._layers[-1].output_activation()

    def flops(self, input_shape: Shape) -> int:
        total = 0
        for layer in self._layers:
            total += layer.flops(input_shape)
            input_shape = layer.output_shape(input_shape)
        return total

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        for key, layer in zip(self._keys, self._layers, strict=True):
            path = f"{name}.{key}" if name else key
            value = layer.lower(builder, value, path)
            if not isinstance(layer, Chain):
                builder.record(f"{path}.h", value)
        return value

    def _declare(self, input_shape: Shape, fresh: list[Layer]) -> Shape:
        for layer in self._layers:
            input_shape = layer._declare(input_shape, fresh)
        return input_shape

    def _known_input_shape(self) -> Shape | None:
        for layer in self._layers:
            shape = layer._known_input_shape()
            if shape is not None or not layer.keeps_shape:
                return shape
        return None

    def _leaves(self, trainable: bool) -> Iterator[tuple[Layer, bool]]:
        for layer in self._layers:
            yield from layer._leaves(trainable and self.trainable)

    def _walk(self, prefix: str, trainable: bool, seen: set[int]) -> Iterator[tuple[str, Segment, bool]]:
        for key, layer in zip(self._keys, self._layers, strict=True):
            yield from layer._walk(f"{prefix}{key}.", trainable and self.trainable, seen)

    def _signature(self) -> tuple[Any, ...]:
        return (super()._signature(), *(layer._signature() for layer in self._layers))


class Branches(Layer):
    """A layer that makes its output from those of chains of layers, which all read its input.

    `_chains`: by name; that of a chain stands before its parameters' names, unless it is ""."""

    _chains: dict[str, Chain]

    @classmethod
    def _from_chains(cls, chains: dict[str, list[Layer]], config: dict[str, Any]) -> "Branches":
        """The layer again from what `config` gives and the layers of its chains."""
        raise NotImplementedError

    def chains(self) -> Iterator[tuple[str, Chain]]:
        """(what its names begin with, chain)."""
        for name, chain in self._chains.items():
            yield f"{name}." if name else "", chain

    def short_arguments(self) -> str:
        """Those of the constructor that are no layers."""
        return self._arguments()

    def flops(self, input_shape: Shape) -> int:
        return sum(chain.flops(input_shape) for chain in self._chains.values())

    def _lowered(self, builder: "Builder", value: int, name: str) -> list[int]:
        """What each chain makes of a value."""
        return [
            chain.lower(builder, value, f"{name}.{prefix}".rstrip(".")) for prefix, chain in self.chains()
        ]

    def _declare(self, input_shape: Shape, fresh: list[Layer]) -> Shape:
        shape = super()._declare(input_shape, fresh)
        for chain in self._chains.values():
            chain._declare(input_shape, fresh)
        return shape

    def _known_input_shape(self) -> Shape | None:
        shapes = (chain._known_input_shape() for chain in self._chains.values())
        return next((shape for shape in shapes if shape is not None), None)

    def _leaves(self, trainable: bool) -> Iterator[tuple[Layer, bool]]:
        for chain in self._chains.values():
            yield from chain._leaves(trainable and self.trainable)

    def _walk(self, prefix: str, trainable: bool, seen: set[int]) -> Iterator[tuple[str, Segment, bool]]:
        for name, chain in self.chains():
            yield from chain._walk(prefix + name, trainable and self.trainable, seen)

    def _signature(self) -> tuple[Any, ...]:
        return (super()._signature(), *(chain._signature() for chain in self._chains.values()))


def checked_layers(layers: Iterable[Layer], what: str) -> tuple[Layer, ...]:
    """The layers as a tuple; TypeError for anything else among them, ValueError for none."""
    if not isinstance(layers, Iterable) or isinstance(layers, Layer):
        raise TypeError(f"{what}: layers must be a list of layers, not {layers!r}")
    result = tuple(layers)
    for index, layer in enumerate(result):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{what}: layer {index} is {layer!r}; expected a Layer (did you mean Activation?)"
            )
    if not result:
        raise ValueError(f"{what}: it needs at least one layer")
    return result


def layer_keys(layers: tuple[Layer, ...], what: str) -> tuple[str, ...]:
    """What each layer is called in "0.weight": its name, else its index."""
    keys: dict[str, Layer] = {}
    for index, layer in enumerate(layers):
        name = layer.name
        if name is not None and (not isinstance(name, str) or not name or "." in name):
            raise ValueError(f"{what}: layer name {name!r} must be a string without dots")
        key = str(index) if name is None or keys.get(name) is layer else name
        if key in keys:
            raise ValueError(f"{what}: two layers are called {key!r}")
        keys[key] = layer
    return tuple(keys)
