"""Convolution of images and of sequences."""

from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike

from .. import activations, initializers
from .._precision import strict
from .._windows import PaddingLike, Pair, PairLike, Sides, checked_groups, ends, window, written
from ..activations import ActivationFunction, ActivationLike
from ..arrays import Shape, shown
from ..errors import ShapeError
from ..parameters import Parameter
from .base import Layer, positive_int

if TYPE_CHECKING:
    from ..lowering import Builder


class Conv2d(Layer):
    """h = act(z), where a window of k_h x k_w taps slides over images (cross-correlation, as everywhere):

        z[n, p, q, o] = b[o] + sum_{i, j, c} x[n, p s_h + i d_h - top, q s_w + j d_w - left, c] W[o, i, j, c]

    x (N, H, W, n_in), weight W (n_out, k_h, k_w, n_in / groups), bias b (n_out,), h (N, H', W', n_out) with
    H' = floor((H + top + bottom - d_h (k_h - 1) - 1) / s_h) + 1, and W' likewise. x is 0 beyond its edges.

    n_in: channels of the input; None takes those of the layer before, or of the first data.
    kernel, stride s, dilation d: a number, or a pair (height, width).
    activation: a name, a pair (f, df) of functions of z, or None for none.
    padding: a number, (height, width), (top, bottom, left, right), "valid" for none, or "same" for as much as
        makes H' = ceil(H / s_h), with the odd pixel at the bottom and the right (TensorFlow's rule; PyTorch's
        where the stride is 1).
    groups: the channels are divided into so many groups, each convolved by itself; with groups = n_in the
        convolution is depthwise.
    bias: False leaves b out, and `layer.bias` is None.
    init: he, xavier, lecun, orthogonal, normal, zeros, or an array of W's shape; by default he where the
        activation is relu or its kin, else xavier.
    bias_init: the same for b, an array (n_out,).
    slope: of leaky_relu, elu and sigmoid.

    ValueError for groups that do not divide the channels, a stride, kernel or dilation below 1, a negative
    padding; ShapeError for images of other channels, or smaller with their padding than the kernel.
    Dumoulin and Visin 2016.
    """

    _structural: ClassVar[frozenset[str]] = frozenset({"trainable", "activation"})
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        kernel: PairLike,
        activation: ActivationLike = None,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | ArrayLike | None = None,
        bias_init: str | ArrayLike = "zeros",
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        op = type(self).__name__
        self._n_in = None if n_in is None else positive_int(n_in, f"{op}: n_in")
        self._n_out = positive_int(n_out, f"{op}: n_out")
        self._window = window(op, kernel, stride, padding, dilation)
        self._groups = checked_groups(op, groups, self._n_in, self._n_out)
        self.activation = activations.resolve(activation, slope)
        self._init = None if init is None else initializers.resolve(init)
        self._bias_init = initializers.resolve(bias_init)
        self._use_bias = bool(bias)
        if not bias:
            self.bias = None
        self.name = name

    @property
    def n_in(self) -> int | None:
        """Channels of the input; None while they are not known."""
        weight = self._segments.get("weight")
        return self._n_in if weight is None else weight.shape[3] * self._groups

    @property
    def n_out(self) -> int:
        """Channels of the output."""
        return self._n_out

    @property
    def kernel(self) -> Pair:
        """(height, width) of the window."""
        return self._window.kernel

    @property
    def stride(self) -> Pair:
        """By what the window moves, (down, right)."""
        return self._window.stride

    @property
    def padding(self) -> Sides | str:
        """(top, bottom, left, right), or "same"."""
        return self._window.padding

    @property
    def dilation(self) -> Pair:
        """How far apart the window's taps are, (down, right)."""
        return self._window.dilation

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return self._groups

    @property
    def activation(self) -> ActivationFunction:
        """The activation; assign a name, a pair or another layer's."""
        return self._activation

    @activation.setter
    def activation(self, value: ActivationLike) -> None:
        self._activation = activations.resolve(value)

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        shape = (self._n_out, *self.kernel, input_shape[-1] // self._groups)
        default = "he" if self.activation.name in activations.HE_KIN else "xavier"
        self.add_parameter("weight", shape, default if self._init is None else self._init)
        if self._use_bias:
            self.add_parameter("bias", (self._n_out,), self._bias_init)

    def output_shape(self, input_shape: Shape) -> Shape:
        op = self._window.op
        if len(input_shape) != 3:
            raise ShapeError(f"{op}: x has shape {shown(input_shape)}, not (N, H, W, n_in)")
        self._check_channels(input_shape)
        return self._window.output_shape(input_shape, self._n_out)

    def _check_channels(self, input_shape: Shape) -> None:
        op, channels = self._window.op, input_shape[-1]
        if self.n_in is not None and channels != self.n_in:
            raise ShapeError(f"{op}: x {shown(input_shape)} has {channels} channels, n_in is {self.n_in}")
        checked_groups(op, self._groups, channels, self._n_out)

    def flops(self, input_shape: Shape) -> int:
        """2 H' W' n_out k_h k_w n_in / groups: taps that meet the padding are counted."""
        height, width, channels = self.output_shape(input_shape)
        taps = self.kernel[0] * self.kernel[1] * input_shape[-1] // self._groups
        return 2 * height * width * channels * taps

    def output_activation(self) -> str | None:
        return self.activation.name if isinstance(self.activation, activations.Builtin) else None

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        z = builder.record(f"{name}.z", self._convolve(builder, value, f"{name}.z"))
        return self.activation.lower(builder, z, f"{name}.h")

    def _convolve(self, builder: "Builder", value: int, name: str) -> int:
        segments = self._segments
        weight = builder.parameter(segments["weight"])
        bias = builder.parameter(segments["bias"]) if "bias" in segments else None
        height, width, _ = builder.dims(value)
        return builder.graph.conv2d(
            value,
            weight,
            bias,
            list(self.stride),
            list(self._window.sides(height, width)),
            list(self.dilation),
            self._groups,
            name,
            strict(),
        )

    def config(self) -> dict[str, Any]:
        padding = self.padding
        return {
            "n_in": self.n_in,
            "n_out": self._n_out,
            "kernel": list(self.kernel),
            "activation": self.activation,
            "stride": list(self.stride),
            "padding": padding if isinstance(padding, str) else list(padding),
            "dilation": list(self.dilation),
            "groups": self._groups,
            "bias": self._use_bias,
        }

    def _arguments(self) -> str:
        kernel, stride, padding, dilation = self._shown_geometry()
        parts = [str(self.n_in), str(self._n_out), kernel]
        if self.activation.name != "identity":
            parts.append(str(self.activation))
        for option, value, usual in (
            ("stride", stride, "1"),
            ("padding", padding, "0"),
            ("dilation", dilation, "1"),
            ("groups", str(self._groups), "1"),
        ):
            if value != usual:
                parts.append(f"{option}={value}")
        if not self._use_bias:
            parts.append("bias=False")
        if self.name:
            parts.append(f"name={self.name!r}")
        return ", ".join(parts)

    def _shown_geometry(self) -> tuple[str, str, str, str]:
        """kernel, stride, padding and dilation as arguments."""
        return written(self.kernel), written(self.stride), written(self.padding), written(self.dilation)


class Conv1d(Conv2d):
    """`Conv2d` for sequences, which are images of height 1: x (N, L, n_in), weight (n_out, 1, k,
    n_in / groups), h (N, L', n_out) with L' = floor((L + before + after - d (k - 1) - 1) / s) + 1.

    kernel k, stride s, dilation d: integers. padding: a number, (before, after), "same" or "valid". The other
    arguments, and the errors, are those of `Conv2d`; `kernel`, `stride`, `padding` and `dilation` read as
    there, for height 1.
    """

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        kernel: int,
        activation: ActivationLike = None,
        stride: int = 1,
        padding: PaddingLike = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | ArrayLike | None = None,
        bias_init: str | ArrayLike = "zeros",
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        op = type(self).__name__
        taps = (1, positive_int(kernel, f"{op}: kernel"))
        steps = (1, positive_int(stride, f"{op}: stride"))
        spread = (1, positive_int(dilation, f"{op}: dilation"))
        if not isinstance(padding, str):
            before, after = ends(padding, f"{op}: padding")
            padding = (0, 0, before, after)
        super().__init__(
            n_in, n_out, taps, activation, steps, padding, spread, groups, bias, init, bias_init, slope, name
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ShapeError(f"{self._window.op}: x has shape {shown(input_shape)}, not (N, L, n_in)")
        self._check_channels(input_shape)
        return self._window.output_shape((1, *input_shape), self._n_out)[1:]

    def flops(self, input_shape: Shape) -> int:
        """2 L' n_out k n_in / groups: taps that meet the padding are counted."""
        length, channels = self.output_shape(input_shape)
        return 2 * length * channels * self.kernel[1] * input_shape[-1] // self._groups

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        graph = builder.graph
        image = graph.reshape(value, (1, *builder.dims(value)), f"{name}.x")
        z = self._convolve(builder, image, f"{name}.z")
        shape = builder.dims(z)[1:]
        # For `trace` alone: another program drops it, so that the activation still joins the convolution.
        builder.record(f"{name}.z", graph.reshape(z, shape, f"{name}.z"))
        return graph.reshape(self.activation.lower(builder, z, f"{name}.h"), shape, f"{name}.h")

    def config(self) -> dict[str, Any]:
        padding = self.padding
        return super().config() | {
            "kernel": self.kernel[1],
            "stride": self.stride[1],
            "padding": padding if isinstance(padding, str) else list(padding[2:]),
            "dilation": self.dilation[1],
        }

    def _shown_geometry(self) -> tuple[str, str, str, str]:
        padding = self.padding if isinstance(self.padding, str) else self.padding[2:]
        return str(self.kernel[1]), str(self.stride[1]), written(padding), str(self.dilation[1])
