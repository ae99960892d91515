"""Normalization over the batch, and what all normalizations share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import activations
from ..activations import ActivationFunction, ActivationLike
from ..arrays import Array, Shape, positive, shown
from ..errors import ShapeError
from ..parameters import Parameter
from .base import Layer, positive_int

if TYPE_CHECKING:
    from ..lowering import Builder


class Normalization(Layer):
    """What a normalization does with x^, which has mean 0 and variance 1: h = act(weight x^ + bias)."""

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "activation", "eps"})
    keeps_shape = True
    weight: Parameter | None
    bias: Parameter | None

    def _set(
        self, activation: ActivationLike, slope: float | None, eps: float, affine: bool, name: str | None
    ) -> None:
        self.activation = activations.resolve(activation, slope)
        self.eps = eps
        self._affine = bool(affine)
        if not affine:
            self.weight = self.bias = None
        self.name = name

    @property
    def activation(self) -> ActivationFunction:
        """The activation; assign a name, a pair or another layer's."""
        return self._activation

    @activation.setter
    def activation(self, value: ActivationLike) -> None:
        self._activation = activations.resolve(value)

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return self._eps

    @eps.setter
    def eps(self, value: float) -> None:
        self._eps = positive(value, f"{type(self).__name__}: eps")

    def output_activation(self) -> str | None:
        return self.activation.name if isinstance(self.activation, activations.Builtin) else None

    def _add_factors(self, shape: Shape) -> None:
        if self._affine:
            self.add_parameter("weight", shape, np.ones(shape))
            self.add_parameter("bias", shape)

    def _factors(self, builder: "Builder") -> Sequence[int] | None:
        """The values of weight and bias, where the layer has them."""
        if not self._affine:
            return None
        return [builder.parameter(self._segments[key]) for key in ("weight", "bias")]

    def _activated(self, builder: "Builder", z: int, name: str) -> int:
        return self.activation.lower(builder, builder.record(f"{name}.z", z), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation, "eps": self.eps, "affine": self._affine}

    def _options(self, *more: str) -> list[str]:
        """What differs from the defaults, for `repr`; `more` stand behind the activation."""
        parts = [*([] if self.activation.name == "identity" else [str(self.activation)]), *more]
        parts += [f"eps={self.eps:g}"] if self.eps != 1e-5 else []
        parts += [] if self._affine else ["affine=False"]
        return parts + ([f"name={self.name!r}"] if self.name else [])


class BatchNorm(Normalization):
    """h = act(z), where every channel is brought to mean 0 and variance 1 over the batch:

        z = weight (x - mean) / sqrt(variance + eps) + bias

    x (N, n) or (N, ..., n), weight and bias (n,), h like x. In training, mean and variance (divided by the
    number of elements m) are those of the channel over the batch and all pixels, and the running ones follow:

        running_mean <- (1 - momentum) running_mean + momentum mean
        running_var  <- (1 - momentum) running_var  + momentum variance m / (m - 1)

    with the unbiased variance; where m = 1 there is none, and running_var stays. `predict`, `evaluate` and
    `forward` use the running ones, and so does training while `trainable` is False. They are state, not
    parameters: saved, never trained, and changed together with the weights when a step is complete.

    n: channels; None takes those of the layer before, or of the first data.
    activation: a name, a pair (f, df) of functions of z, or None for none.
    momentum: in (0, 1]: the share of the batch in the running statistics (Keras' momentum is 1 minus this).
    eps: above 0.
    affine: False leaves weight and bias out.
    slope: of leaky_relu, elu and sigmoid.

    Behind a convolution, `predict` folds the layer into the filters. ShapeError for other channels. Ioffe and
    Szegedy 2015; the formulas of momentum and variance are PyTorch's.
    """

    _structural: ClassVar[frozenset[str]] = Normalization._structural | {"momentum"}
    running_mean: Array
    running_var: Array

    def __init__(
        self,
        n: int | None = None,
        activation: ActivationLike = None,
        momentum: float = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        self._n = None if n is None else positive_int(n, "BatchNorm: n")
        self._set(activation, slope, eps, affine, name)
        self.momentum = momentum

    @property
    def n(self) -> int | None:
        """Channels; None while they are not known."""
        mean = self._segments.get("running_mean")
        return self._n if mean is None else mean.shape[0]

    @property
    def momentum(self) -> float:
        """The share of the batch in the running statistics."""
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        checked = positive(value, "BatchNorm: momentum")
        if checked > 1:
            raise ValueError(f"BatchNorm: momentum is {value}; it must be above 0 and at most 1")
        self._momentum = checked

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        channels = (input_shape[-1],)
        self._add_factors(channels)
        self.add_state("running_mean", channels)
        self.add_state("running_var", channels, np.ones(channels))

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.n is not None and input_shape[-1] != self.n:
            raise ShapeError(
                f"batch_norm: x {shown(input_shape)} has {input_shape[-1]} channels, n is {self.n}"
            )
        return input_shape

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        running = [builder.parameter(self._segments[key]) for key in ("running_mean", "running_var")]
        training = builder.training and builder.trains(self)
        z = builder.graph.batch_norm(
            value, self._factors(builder), running, self.eps, self.momentum, training, f"{name}.z"
        )
        return self._activated(builder, z, name)

    def config(self) -> dict[str, Any]:
        return {"n": self.n, "momentum": self.momentum, **super().config()}

    def _arguments(self) -> str:
        momentum = [f"momentum={self.momentum:g}"] if self.momentum != 0.1 else []
        return ", ".join([str(self.n), *self._options(*momentum)])
