"""Normalization within a sample."""

from typing import TYPE_CHECKING, Any

from ..activations import ActivationLike
from ..arrays import Shape, shown
from ..errors import ShapeError
from .base import checked_shape, positive_int
from .norm import Normalization

if TYPE_CHECKING:
    from ..lowering import Builder


class GroupNorm(Normalization):
    """h = act(z), where each group of a sample's channels is brought to mean 0 and variance 1:

        z = weight (x - mean) / sqrt(variance + eps) + bias

    x (N, n) or (N, ..., n), weight and bias (n,), h like x. mean and variance (divided by the number of
    elements) are those of the n / groups channels of a group, over all pixels of the sample: the same in
    training and after it, whatever the batch.

    groups: how many, must divide the channels. 1 takes all of them together, n each by itself (instance
    normalization).
    n: channels; None takes those of the layer before, or of the first data.
    activation: a name, a pair (f, df) of functions of z, or None for none.
    eps: above 0.
    affine: False leaves weight and bias out.
    slope: of leaky_relu, elu and sigmoid.

    ShapeError for other channels, ValueError where groups does not divide them. Wu and He 2018; instance
    normalization: Ulyanov, Vedaldi and Lempitsky 2016.
    """

    def __init__(
        self,
        groups: int,
        n: int | None = None,
        activation: ActivationLike = None,
        eps: float = 1e-5,
        affine: bool = True,
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        self._groups = positive_int(groups, "GroupNorm: groups")
        self._n = None if n is None else positive_int(n, "GroupNorm: n")
        if self._n is not None:
            self._check_groups(self._n)
        self._set(activation, slope, eps, affine, name)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return self._groups

    @property
    def n(self) -> int | None:
        """Channels; None where nothing says how many."""
        weight = self._segments.get("weight")
        return self._n if weight is None else weight.shape[0]

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        self._add_factors(input_shape[-1:])

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1]
        if self.n is not None and channels != self.n:
            raise ShapeError(f"group_norm: x {shown(input_shape)} has {channels} channels, n is {self.n}")
        self._check_groups(channels)
        return input_shape

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        z = builder.graph.group_norm(value, self._factors(builder), self.groups, 0, self.eps, f"{name}.z")
        return self._activated(builder, z, name)

    def config(self) -> dict[str, Any]:
        return {"groups": self.groups, "n": self.n, **super().config()}

    def _check_groups(self, channels: int) -> None:
        if channels % self._groups:
            raise ValueError(
                f"GroupNorm: groups is {self._groups}, which does not divide {channels} channels"
            )

    def _arguments(self) -> str:
        return ", ".join([str(self.groups), str(self.n), *self._options()])


class LayerNorm(Normalization):
    """h = act(z), where the last axes of each sample are brought to mean 0 and variance 1:

        z = weight (x - mean) / sqrt(variance + eps) + bias

    x (N, ..., *shape), weight and bias of `shape`, h like x. mean and variance (divided by the number of
    elements) are taken over the axes of `shape`, for each place along the others.

    shape: the sizes of the last axes, an integer for one; None takes the last axis of the layer before, or of
    the first data. Channels are last, whatever the network's layout.
    activation: a name, a pair (f, df) of functions of z, or None for none.
    eps: above 0.
    affine: False leaves weight and bias out.
    slope: of leaky_relu, elu and sigmoid.

    ShapeError where the last axes are others. Ba, Kiros and Hinton 2016.
    """

    def __init__(
        self,
        shape: int | Shape | None = None,
        activation: ActivationLike = None,
        eps: float = 1e-5,
        affine: bool = True,
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        self._shape = None if shape is None else checked_shape(shape, "LayerNorm: shape")
        self._set(activation, slope, eps, affine, name)

    @property
    def shape(self) -> Shape | None:
        """The sizes of the axes over which is normalized; None where nothing says which."""
        weight = self._segments.get("weight")
        return self._shape if weight is None else weight.shape

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        self._add_factors(self._shape or input_shape[-1:])

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = self.shape
        if shape is not None and input_shape[max(len(input_shape) - len(shape), 0) :] != shape:
            raise ShapeError(f"layer_norm: the last axes of x {shown(input_shape)} are not {shape}")
        return input_shape

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        axes = len(self._shape or (1,))  # the last, where nothing else is said
        z = builder.graph.group_norm(value, self._factors(builder), 1, axes, self.eps, f"{name}.z")
        return self._activated(builder, z, name)

    def config(self) -> dict[str, Any]:
        return {"shape": None if self.shape is None else list(self.shape), **super().config()}

    def _arguments(self) -> str:
        shape = self.shape
        return ", ".join([str(shape[0] if shape and len(shape) == 1 else shape), *self._options()])
