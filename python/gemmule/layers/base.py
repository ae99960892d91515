"""What every layer is: a description that a network gives memory and lowers to graph operations."""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import initializers
from ..arrays import Array, Shape
from ..errors import ShapeError
from ..parameters import Parameter, Segment

if TYPE_CHECKING:
    from ..lowering import Builder


class Revision:
    """Counts changes of structure anywhere, so that networks know when to look at their programs again."""

    count = 0


class Layer:
    """One step of a network.

    Subclass it to write a layer in Python, on whole batches of NumPy arrays:

        class Scale(gm.Layer):
            def build(self, input_shape):
                self.add_parameter("scale", input_shape, np.ones(input_shape))

            def forward(self, x):                       # (N, *input_shape) -> (N, *output_shape)
                self.x = x
                return x * self.scale

            def backward(self, dy):                     # gradient of y -> gradient of x
                self.scale.grad += (dy * self.x).sum(axis=0)
                return dy * self.scale

    `output_shape` must be given where it differs from the input's; `config` where the constructor takes
    arguments and the network is to be saved. Shapes never count the batch. `self.training` is True in a
    forward pass with training=True and in `fit`. Parameters are attributes: `self.scale` reads, `self.scale =
    a` copies into place. x and dy are the layer's own copies.

    What `forward` keeps for `backward`, the next forward pass overwrites: one such layer has one place in a
    network, and no `predict`, from another thread least of all, comes between the two.
    """

    # Attributes that change the compiled programs when set.
    _structural: ClassVar[frozenset[str]] = frozenset({"trainable"})
    # Whether the output always has the input's shape: then widths may be known across it before data comes.
    keeps_shape: ClassVar[bool] = False

    name: str | None = None
    trainable: bool = True
    training: bool = False
    _segments: dict[str, Segment]
    _stage: Literal["described", "building", "built"]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Here, not in __init__, which a user's layer need not call.
        layer = super().__new__(cls)
        object.__setattr__(layer, "_segments", {})
        object.__setattr__(layer, "_stage", "described")
        return layer

    # -- what subclasses define ------------------------------------------------------------------------------

    @property
    def input_shape(self) -> Shape | None:
        """The input's shape where the layer alone determines it."""
        return None

    def build(self, input_shape: Shape) -> None:
        """Declare parameters with `add_parameter`. Called once; ShapeError where the input does not fit."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for an input of `input_shape`; ShapeError where it does not fit."""
        return input_shape

    def forward(self, x: Array) -> Array:
        """y (N, *output_shape) from x (N, *input_shape)."""
        raise NotImplementedError(
            f"{type(self).__name__} runs inside a Network; a layer in Python defines forward"
        )

    def backward(self, dy: Array) -> Array:
        """The gradient of x from that of y; adds to the `.grad` of the layer's parameters."""
        raise NotImplementedError(
            f"{type(self).__name__} runs inside a Network; a layer in Python defines backward"
        )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them: `save` keeps them, `load` calls the class with
        them."""
        init: Any = type(self).__init__
        if init is not object.__init__ and len(inspect.signature(init).parameters) > 1:
            raise TypeError(
                f"{type(self).__name__} cannot be saved: its constructor takes arguments, so it must define "
                "config()"
            )
        return {}

    def flops(self, input_shape: Shape) -> int:
        """Floating-point operations of the forward pass of one sample; 0 where they are not worth
        counting."""
        return 0

    def output_activation(self) -> str | None:
        """The name of the activation that made the output, where there is one."""
        return None

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        """Append this layer's operations to the graph and return the value it makes."""
        from ..lowering import lower_python_layer

        return lower_python_layer(builder, self, value, name)

    # -- parameters ------------------------------------------------------------------------------------------

    def add_parameter(self, name: str, shape: Shape, init: str | ArrayLike = "zeros") -> None:
        """Declare a parameter; only in `build`. init: a name (he, xavier, ...) or an array of the shape."""
        self._add(name, shape, init, is_state=False)

    def _add(self, name: str, shape: Shape, init: str | ArrayLike, *, is_state: bool) -> None:
        if self._stage != "building":
            raise RuntimeError(f"{type(self).__name__}: parameters are declared in build()")
        if not name.isidentifier() or name in self._segments or hasattr(type(self), name):
            raise ValueError(f"{type(self).__name__}: parameter name {name!r} is taken or not an identifier")
        shape = checked_shape(shape, f"{type(self).__name__}: the shape of {name!r}")
        if math.prod(shape) * 8 >= 2**63:
            raise ShapeError(f"{type(self).__name__}: {name!r} of shape {shape} overflows 64 bits")
        self.__dict__.pop(name, None)
        self._segments[name] = Segment(name, shape, initializers.resolve(init), is_state)

    def add_state(self, name: str, shape: Shape, init: str | ArrayLike = "zeros") -> None:
        """Declare an array that is saved with the network but not trained; only in `build`. `self.name` is
        then a view of it."""
        self._add(name, shape, init, is_state=True)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, Parameter) in layer order; what is shared occurs once."""
        for name, segment, _ in self._walk("", True, set()):
            if not segment.is_state:
                yield name, segment.view(name)

    def named_state(self) -> Iterator[tuple[str, Array]]:
        """(name, array) of what is saved but not trained, such as running statistics: views, in layer
        order."""
        for name, segment, _ in self._walk("", True, set()):
            if segment.is_state:
                yield name, segment.values

    def parameters(self) -> Iterator[Parameter]:
        """The parameters in layer order."""
        for _, parameter in self.named_parameters():
            yield parameter

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for parameter in self.parameters():
            parameter.grad[...] = 0

    def _declare(self, input_shape: Shape, fresh: "list[Layer]") -> Shape:
        """Declare the parameters where that is still to be done, noting the layer in `fresh`; the output's
        shape."""
        if self._stage == "described":
            fresh.append(self)
            self._stage = "building"
            self.build(input_shape)
        shape = self.output_shape(input_shape)
        if not isinstance(shape, tuple):
            raise TypeError(f"{type(self).__name__}: output_shape returned {shape!r}, not a tuple")
        return checked_shape(shape, f"{type(self).__name__}: output_shape")

    def _known_input_shape(self) -> Shape | None:
        """The input's shape as far as the layer tells it by itself."""
        return self.input_shape

    def _walk(self, prefix: str, trainable: bool, seen: set[int]) -> Iterator[tuple[str, Segment, bool]]:
        """(name, segment, trainable) of every parameter, and of all state, not yet in `seen`."""
        for name, segment in self._segments.items():
            if id(segment) not in seen:
                seen.add(id(segment))
                yield prefix + name, segment, trainable and self.trainable and not segment.is_state

    def _leaves(self, trainable: bool) -> "Iterator[tuple[Layer, bool]]":
        """(layer, whether it is trained) of every layer within that is none of layers itself."""
        yield self, trainable and self.trainable

    def _signature(self) -> tuple[Any, ...]:
        """Changes whenever compiled programs no longer fit."""
        return tuple(getattr(self, name) for name in sorted(self._structural))

    # -- attributes ------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        segment: Segment | None = self.__dict__.get("_segments", {}).get(name)
        if segment is not None and segment.block is not None:
            return segment.values if segment.is_state else segment.view()
        message = f"{type(self).__name__} has no attribute {name!r}"
        if not name.startswith("_") and self.__dict__.get("_stage") != "built":
            message += " (parameters exist once a network with known widths holds the layer)"
        raise AttributeError(message)

    def __setattr__(self, name: str, value: Any) -> None:
        segment = self._segments.get(name)
        if segment is not None:
            segment.assign(value)
            return
        object.__setattr__(self, name, value)
        if name in self._structural:
            Revision.count += 1

    def __getstate__(self) -> dict[str, Any]:
        # A shallow copy shares its parameters; what it declares later is its own.
        return {**vars(self), "_segments": dict(self._segments)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments()})"

    def _arguments(self) -> str:
        return f"name={self.name!r}" if self.name else ""


def checked_shape(shape: Sequence[int] | int, what: str) -> Shape:
    """A shape of positive integers; a single one means (n,). TypeError, ValueError and, for no dimensions,
    ShapeError name the argument."""
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
    if not sizes:
        raise ShapeError(f"{what} is empty; it has at least one dimension")
    return tuple(positive_int(size, what) for size in sizes)


def positive_int(value: Any, what: str) -> int:
    """`value` as an int of 1 or more in 64 bits; TypeError and ValueError name the argument."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{what} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{what} is {value}; it must be at least 1")
    if value >= 2**63:
        raise ValueError(f"{what} is {value}; it must be below 2**63")
    return int(value)
