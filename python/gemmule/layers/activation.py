"""An activation as a layer of its own."""

from typing import TYPE_CHECKING, Any, ClassVar

from .. import activations
from ..activations import ActivationLike
from ..arrays import Shape
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class Activation(Layer):
    """h = f(x) of any shape; softmax runs over the last axis.

    function: a name, or a pair (f, df) of functions of z. slope: of leaky_relu, elu and sigmoid.
    """

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "function"})
    keeps_shape = True

    def __init__(self, function: ActivationLike, slope: float | None = None, name: str | None = None) -> None:
        self.function = activations.resolve(function, slope)
        self.name = name

    @property
    def function(self) -> activations.ActivationFunction:
        """What is applied; assign a name or a pair."""
        return self._function

    @function.setter
    def function(self, value: ActivationLike) -> None:
        self._function = activations.resolve(value)

    def output_activation(self) -> str | None:
        return self.function.name if isinstance(self.function, activations.Builtin) else None

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        return self.function.lower(builder, value, f"{name}.h")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def config(self) -> dict[str, Any]:
        return {"function": self.function}

    def _arguments(self) -> str:
        return str(self.function) + (f", name={self.name!r}" if self.name else "")
