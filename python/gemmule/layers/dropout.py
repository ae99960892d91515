"""Dropout."""

from typing import TYPE_CHECKING, Any, ClassVar

from ..arrays import fraction
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
        self._rate = fraction(value, "Dropout: rate")

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        number = builder.next_dropout()
        if not builder.training or self.rate == 0:
            return value
        return builder.graph.dropout(value, self.rate, number, f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def _arguments(self) -> str:
        return f"{self.rate:g}" + (f", name={self.name!r}" if self.name else "")
