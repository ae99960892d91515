"""Flatten."""

import math
from typing import TYPE_CHECKING, Any

from ..arrays import Shape
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class Flatten(Layer):
    """(N, a, b, ...) -> (N, a b ...), the last axis running fastest."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        return builder.graph.reshape(value, self.output_shape(builder.dims(value)), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {}
