"""The dense layer, h = act(x W^T + b)."""

from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike

from .. import activations, initializers
from .._precision import checked_precision
from ..activations import ActivationFunction, ActivationLike
from ..arrays import Shape, shown
from ..errors import ShapeError
from ..parameters import Parameter
from .base import Layer, positive_int

if TYPE_CHECKING:
    from ..lowering import Builder


class Dense(Layer):
    """h = act(z), z = x W^T + b: x (N, n_in), weight W (n_out, n_in), bias b (n_out,), h (N, n_out).

    n_in: None takes the width of the layer before, or of the first data.
    activation: a name, a pair (f, df) of functions of z, or None for none.
    bias: False leaves b out, and `layer.bias` is None.
    init: he, xavier, lecun, orthogonal, normal, zeros, or an array (n_out, n_in); by default he where the
        activation is relu or its kin, else xavier.
    bias_init: the same for b, an array (n_out,).
    slope: of leaky_relu, elu and sigmoid.
    precision: "bf16" rounds the operands of the layer's products, forward and backward, to bfloat16; sums,
        weights and gradients stay float32. "full" does not. None: "full", unless `fit` says otherwise. Only
        networks of float32 run in bf16: DTypeError.
    """

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "activation", "precision"})
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        activation: ActivationLike = None,
        bias: bool = True,
        init: str | ArrayLike | None = None,
        bias_init: str | ArrayLike = "zeros",
        slope: float | None = None,
        name: str | None = None,
        precision: str | None = None,
    ) -> None:
        self._n_in = None if n_in is None else positive_int(n_in, "Dense: n_in")
        self._n_out = positive_int(n_out, "Dense: n_out")
        self.activation = activations.resolve(activation, slope)
        self._init = None if init is None else initializers.resolve(init)
        self._bias_init = initializers.resolve(bias_init)
        self._use_bias = bool(bias)
        if not bias:
            self.bias = None
        self.name = name
        self.precision = precision

    @property
    def n_in(self) -> int | None:
        """Input width; None while it is not known."""
        weight = self._segments.get("weight")
        return self._n_in if weight is None else weight.shape[1]

    @property
    def n_out(self) -> int:
        """Output width."""
        return self._n_out

    @property
    def activation(self) -> ActivationFunction:
        """The activation; assign a name, a pair or another layer's."""
        return self._activation

    @activation.setter
    def activation(self, value: ActivationLike) -> None:
        self._activation = activations.resolve(value)

    @property
    def precision(self) -> str | None:
        """What operands are rounded to; assign "full", "bf16" or None."""
        return self._precision

    @precision.setter
    def precision(self, value: str | None) -> None:
        self._precision = None if value is None else checked_precision(value, "Dense: precision")

    @property
    def input_shape(self) -> Shape | None:
        return None if self.n_in is None else (self.n_in,)

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        (n_in,) = input_shape
        default = "he" if self.activation.name in activations.HE_KIN else "xavier"
        self.add_parameter("weight", (self._n_out, n_in), default if self._init is None else self._init)
        if self._use_bias:
            self.add_parameter("bias", (self._n_out,), self._bias_init)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"dense: x has shape {shown(input_shape)}, not (N, n_in): put Flatten() before")
        if self.n_in is not None and input_shape[0] != self.n_in:
            weight = (self._n_out, self.n_in)
            raise ShapeError(f"dense: x has {input_shape[0]} features, weight {weight} takes {self.n_in}")
        return (self._n_out,)

    def flops(self, input_shape: Shape) -> int:
        return 2 * self._n_out * input_shape[0]

    def output_activation(self) -> str | None:
        return self.activation.name if isinstance(self.activation, activations.Builtin) else None

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        segments = self._segments
        weight = builder.parameter(segments["weight"])
        bias = builder.parameter(segments["bias"]) if "bias" in segments else None
        precision = builder.precision_of(self.precision, f"{name}: {self!r}")
        z = builder.record(f"{name}.z", builder.graph.dense(value, weight, bias, f"{name}.z", precision))
        return self.activation.lower(builder, z, f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {
            "n_in": self.n_in,
            "n_out": self._n_out,
            "bias": self._use_bias,
            "activation": self.activation,
            "precision": self.precision,
        }

    def _arguments(self) -> str:
        parts = [str(self.n_in), str(self._n_out)]
        if self.activation.name != "identity":
            parts.append(str(self.activation))
        if not self._use_bias:
            parts.append("bias=False")
        if self.precision is not None:
            parts.append(f"precision={self.precision!r}")
        if self.name:
            parts.append(f"name={self.name!r}")
        return ", ".join(parts)
