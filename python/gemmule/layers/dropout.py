"""Dropout, of units and of whole channels."""

from typing import TYPE_CHECKING, Any, ClassVar

from ..arrays import Shape, fraction, shown
from ..errors import ShapeError
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class Dropout(Layer):
    """In training h = x mask / (1 - rate), where each unit is dropped with probability `rate`; else h = x.

    The mask is drawn from the network's Philox stream at (step, layer, sample, unit), so it is the same for
    any number of threads. Srivastava et al. 2014.
    """

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "rate"})
    keeps_shape = True

    def __init__(self, rate: float, name: str | None = None) -> None:
        self.rate = rate
        self.name = name

    @property
    def rate(self) -> float:
        """Probability of being dropped, at least 0 and below 1."""
        return self._rate

    @rate.setter
    def rate(self, value: float) -> None:
        self._rate = fraction(value, f"{type(self).__name__}: rate")

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        number = builder.next_dropout()
        if not builder.training or self.rate == 0:
            return value
        return self._drop(builder, value, number, f"{name}.h")

    def _drop(self, builder: "Builder", value: int, number: int, name: str) -> int:
        return builder.graph.dropout(value, self.rate, number, name)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def _arguments(self) -> str:
        return f"{self.rate:g}" + (f", name={self.name!r}" if self.name else "")


class Dropout2d(Dropout):
    """In training h = x mask / (1 - rate), where each channel of each sample is dropped as a whole with
    probability `rate`, as neighbouring pixels say much the same; else h = x. x (N, ..., C), images or
    sequences; ShapeError for samples of one axis.

    The mask is drawn from the network's Philox stream at (step, layer, sample, channel). Tompson et al. 2015.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2:
            raise ShapeError(f"Dropout2d: x has shape {shown(input_shape)}, not (N, H, W, C) or (N, L, C)")
        return input_shape

    def _drop(self, builder: "Builder", value: int, number: int, name: str) -> int:
        return builder.graph.dropout2d(value, self.rate, number, name)
