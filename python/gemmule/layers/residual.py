"""Layers with a way around them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from .. import activations
from ..activations import ActivationFunction, ActivationLike
from ..arrays import Shape, shown
from ..errors import ShapeError
from .base import Layer
from .container import Branches, Chain

if TYPE_CHECKING:
    from ..lowering import Builder


class Residual(Branches):
    """h = act(f(x) + s(x)): f is `layers` one after the other, s the shortcut.

        gm.Residual(
            gm.Conv2d(16, 16, 3, padding=1, bias=False), gm.BatchNorm(16, "relu"),
            gm.Conv2d(16, 16, 3, padding=1, bias=False), gm.BatchNorm(16),
            activation="relu",
        )

    shortcut: a layer or a list of layers, such as a convolution of 1 x 1 with the stride of the others; None
        for x itself. Its parameters are called "shortcut.0.weight" and so on, those of the layers
        "0.weight".
    activation: a name, a pair (f, df) of functions of z, or None for none. slope: of leaky_relu, elu and
        sigmoid.

    ShapeError where the two shapes differ: nothing is broadcast. A convolution or BatchNorm in front of the
    sum takes it, and relu or leaky_relu behind, along in its one pass over the data. He, Zhang, Ren and Sun
    2016.
    """

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "activation"})

    def __init__(
        self,
        *layers: Layer,
        shortcut: Layer | Iterable[Layer] | None = None,
        activation: ActivationLike = None,
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        self._chains = {"": Chain(layers, "Residual")}
        if "shortcut" in self._chains[""]._keys:
            raise ValueError("Residual: a layer is called 'shortcut'; that name stands for the way around")
        if shortcut is not None:
            around = [shortcut] if isinstance(shortcut, Layer) else shortcut
            self._chains["shortcut"] = Chain(around, "Residual: shortcut")
        self.activation = activations.resolve(activation, slope)
        self.name = name

    @property
    def activation(self) -> ActivationFunction:
        """The activation; assign a name, a pair or another layer's."""
        return self._activation

    @activation.setter
    def activation(self, value: ActivationLike) -> None:
        self._activation = activations.resolve(value)

    def output_shape(self, input_shape: Shape) -> Shape:
        made = [chain.output_shape(input_shape) for chain in self._chains.values()]
        around = made[1] if len(made) > 1 else input_shape
        if made[0] != around:
            raise ShapeError(
                f"residual: the layers make {shown(made[0])} of {shown(input_shape)}, the shortcut "
                f"{shown(around)}; give a shortcut that makes the same"
            )
        return around

    def output_activation(self) -> str | None:
        return self.activation.name if isinstance(self.activation, activations.Builtin) else None

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        made = self._lowered(builder, value, name)
        around = made[1] if len(made) > 1 else value
        z = builder.record(f"{name}.z", builder.graph.add(made[0], around, f"{name}.z"))
        return self.activation.lower(builder, z, f"{name}.h")

    @classmethod
    def _from_chains(cls, chains: dict[str, list[Layer]], config: dict[str, Any]) -> "Residual":
        unknown = sorted(chains.keys() - {"", "shortcut"})
        if unknown:
            raise ValueError(f"Residual: it has no chain {unknown[0]!r}")
        return cls(*chains[""], shortcut=chains.get("shortcut"), **config)

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation}

    def _arguments(self) -> str:
        parts = [repr(layer) for layer in self._chains[""]._layers]
        if "shortcut" in self._chains:
            parts.append(f"shortcut={list(self._chains['shortcut']._layers)!r}")
        parts += [self.short_arguments()] if self.short_arguments() else []
        return ", ".join(parts)

    def short_arguments(self) -> str:
        """Those that are no layers."""
        parts = []
        if self.activation.name != "identity":
            parts.append(f"activation={self.activation}")
        if self.name:
            parts.append(f"name={self.name!r}")
        return ", ".join(parts)
