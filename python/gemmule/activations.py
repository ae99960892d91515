"""Activation functions, by name or as a pair of functions of z.

    identity    z                              relu      max(z, 0)
    leaky_relu  z, slope z below 0 (0.01)      elu       z, slope (exp(z) - 1) below 0 (1)
    gelu        z Phi(z), by erf               gelu_tanh its tanh approximation
    silu        z / (1 + exp(-z))              sigmoid   1 / (1 + exp(-slope z)) (1)
    tanh        tanh(z)                        softplus  log(1 + exp(z))
    softmax     exp(z_i) / sum_j exp(z_j) over the last axis

In brackets the default of `slope`, which only those three take.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .arrays import Array, real_number, unknown_name

if TYPE_CHECKING:
    from .lowering import Builder

ELEMENTWISE = (
    "identity", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softplus",
)  # fmt: skip
NAMES = (*ELEMENTWISE, "softmax")
DEFAULT_SLOPES = {"leaky_relu": 0.01, "elu": 1.0, "sigmoid": 1.0}
HE_KIN = frozenset({"relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus"})

ArrayFunction = Callable[[Array], Array]


class Builtin(NamedTuple):
    """A compiled activation and its slope."""

    name: str
    slope: float

    def lower(self, builder: "Builder", z: int, name: str) -> int:
        if self.name == "identity":
            return z
        if self.name == "softmax":
            return builder.graph.softmax(z, name)
        return builder.graph.activation(z, self.name, self.slope, name)

    def __str__(self) -> str:
        default = DEFAULT_SLOPES.get(self.name, 1.0)
        return self.name if self.slope == default else f"{self.name}, slope={self.slope:g}"


class Custom(NamedTuple):
    """A user's activation: h = f(z) and dz = dh * df(z), on NumPy batches; df is elementwise."""

    f: ArrayFunction
    df: ArrayFunction

    @property
    def name(self) -> str:
        return getattr(self.f, "__name__", type(self.f).__name__)

    def lower(self, builder: "Builder", z: int, name: str) -> int:
        df = self.df

        def backward(dh: Array, z: Array, h: Array) -> Array:
            return dh * df(z)

        return builder.graph.python(z, builder.dims(z), self.f, backward, name)

    def __str__(self) -> str:
        return self.name


ActivationFunction = Builtin | Custom
ActivationLike = str | ActivationFunction | Sequence[Callable[[Any], Any]] | None


def resolve(
    activation: Any, slope: float | None = None, known: tuple[str, ...] = NAMES
) -> ActivationFunction:
    """The activation meant by a name, a pair (f, df), an `Activation` layer, or None (identity).

    ValueError for an unknown name or a slope that the activation does not take, TypeError for anything
    else."""
    activation = getattr(activation, "function", activation)  # an Activation layer
    if activation is None:
        activation = "identity"
    if isinstance(activation, str):
        if activation not in known:
            raise unknown_name("activation", activation, known)
        return Builtin(activation, _checked_slope(activation, slope))
    if slope is not None:
        raise ValueError("slope goes with the name of an activation, not with an object")
    if isinstance(activation, Builtin | Custom):
        return activation
    if isinstance(activation, Sequence) and len(activation) == 2 and all(map(callable, activation)):
        return Custom(*activation)
    raise TypeError(
        f"activation must be a name ({', '.join(known)}) or a pair of functions (f, df) of z, "
        f"not {activation!r}"
    )


def _checked_slope(name: str, slope: float | None) -> float:
    if slope is None:
        return DEFAULT_SLOPES.get(name, 1.0)
    if name not in DEFAULT_SLOPES:
        raise ValueError(f"{name} takes no slope; those that do: {', '.join(DEFAULT_SLOPES)}")
    number = real_number(slope, f"{name}: slope")
    if not math.isfinite(number) or (number < 0 and name != "sigmoid"):
        raise ValueError(f"{name}: slope {slope} must be finite and not negative")
    return number
