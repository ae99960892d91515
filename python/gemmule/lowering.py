"""From layers to graph operations."""

from typing import TYPE_CHECKING

from . import _core
from ._precision import precision_now
from .arrays import Array, Shape, any_array
from .errors import DTypeError, ShapeError
from .parameters import Segment

if TYPE_CHECKING:
    from .layers.base import Layer
    from .network import Network


class Builder:
    """A `_core.Graph` under construction, with the names of its values.

    training: whether dropout is in and layers in Python see `training`. fitting: the graph is for the
    training loop, where a step's gradients replace those of the step before. precision: that of layers that
    have none of their own."""

    def __init__(
        self, network: "Network", *, training: bool, fitting: bool = False, precision: str | None = None
    ) -> None:
        self.graph = _core.Graph(network.dtype)
        self._dtype = network.dtype
        self._precision = precision or "full"
        self.training = training
        self.fitting = fitting
        self.values: dict[str, int] = {}
        self._names = {id(segment): (name, trainable) for name, segment, trainable in network.segments()}
        self._trained = {id(layer) for layer, on in network._leaves(True) if on}
        self._dropouts = 0
        self._in_python: set[int] = set()
        shape = network.built_input_shape
        self.input = self.record("x", self.graph.input(list(shape), "x"))
        self.output = network.lower(self, self.input, "")

    def dims(self, value: int) -> Shape:
        """The value's shape without the batch."""
        return self.graph.dims(value)

    def parameter(self, segment: Segment) -> int:
        """The graph's value for a parameter."""
        name, trainable = self._names[id(segment)]
        return self.graph.parameter(segment.placed.store, segment.index, list(segment.shape), trainable, name)

    def trains(self, layer: "Layer") -> bool:
        """Whether a layer without layers of its own is trained anywhere in the network."""
        return id(layer) in self._trained

    def record(self, name: str, value: int) -> int:
        """Remember a value under its name in `trace`."""
        self.values[name] = value
        return value

    def precision_of(self, chosen: str | None, layer: str) -> str:
        """What the products of a layer that chose this compute in. DTypeError for bf16 outside float32."""
        precision = chosen or self._precision
        if precision == "bf16" and self._dtype != "float32":
            raise DTypeError(f"{layer}: precision 'bf16' is for float32, the network is {self._dtype}")
        return precision_now(precision)

    def once(self, layer: "Layer") -> None:
        """ValueError for a layer in Python that occurs again: it has one place to keep what its backward
        needs."""
        if id(layer) in self._in_python:
            raise ValueError(f"{layer!r} occurs twice in the network; a layer in Python can only do so once")
        self._in_python.add(id(layer))

    def next_dropout(self) -> int:
        """The number of the next dropout layer, the same in every program."""
        self._dropouts += 1
        return self._dropouts - 1


def lower_python_layer(builder: Builder, layer: "Layer", value: int, name: str) -> int:
    """An operation that calls the layer's own forward and backward."""
    builder.once(layer)
    training, fitting = builder.training, builder.fitting
    shape_in = builder.dims(value)
    shape_out = layer.output_shape(shape_in)

    def forward(x: Array) -> Array:
        layer.training = training
        if fitting:
            layer.zero_grad()
        return _checked(layer.forward(x), (len(x), *shape_out), layer, "forward")

    def backward(dy: Array, x: Array, y: Array) -> Array:
        return _checked(layer.backward(dy), (len(dy), *shape_in), layer, "backward")

    return builder.graph.python(value, list(shape_out), forward, backward, f"{name}.h")


def _checked(result: Array, shape: Shape, layer: "Layer", method: str) -> Array:
    what = f"what {type(layer).__name__}.{method} returned"
    array = any_array(result, what)
    if array.shape != shape:
        raise ShapeError(f"{what} has shape {array.shape} where {shape} was due")
    return array
