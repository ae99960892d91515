"""Transposed convolution of images."""

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from .. import activations
from .._precision import strict
from .._windows import PaddingLike, Pair, PairLike, transposed, written
from ..activations import ActivationLike
from ..arrays import Shape, shown
from ..errors import ShapeError
from .conv import Conv2d

if TYPE_CHECKING:
    from ..lowering import Builder


class ConvTranspose2d(Conv2d):
    """h = act(z), where z is what a convolution of (N, H', W', n_out) to (N, H, W, n_in) would carry back to
    its image, so that every pixel of x adds a window of k_h x k_w taps to z:

        z[n, y, q, o] = b[o] + the sum of x[n, p, r, c] W[c, i, j, o] over c, over all p and i with
                        p s_h + i d_h - top = y, and over all r and j with r s_w + j d_w - left = q

    x (N, H, W, n_in), weight W (n_in, k_h, k_w, n_out / groups), the filters of that convolution (PyTorch's
    but for the channels last), bias b (n_out,), h (N, H', W', n_out) with
    H' = (H - 1) s_h - top - bottom + d_h (k_h - 1) + output_padding + 1, and W' likewise.

    n_in, kernel, stride s, dilation d, activation, groups, bias, init, bias_init, slope: see `Conv2d`. An
        init goes by the fans of that convolution, fan_in = k_h k_w n_out / groups, as PyTorch's does.
    padding: of that convolution, what is cut off from z: a number, (height, width), (top, bottom, left,
        right), "valid" for none, or "same" for H' = H s_h.
    output_padding: a number or (height, width), less than the stride: so many more rows at the bottom and
        columns at the right, where convolutions of several sizes give one. Not with "same".

    ValueError for groups that do not divide the channels, a stride, kernel or dilation below 1, a negative
    padding, an output_padding that is not less than the stride; ShapeError for images of other channels, and
    where the padding leaves nothing. Dumoulin and Visin 2016.
    """

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        kernel: PairLike,
        activation: ActivationLike = None,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        output_padding: PairLike = 0,
        dilation: PairLike = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | ArrayLike | None = None,
        bias_init: str | ArrayLike = "zeros",
        slope: float | None = None,
        name: str | None = None,
    ) -> None:
        op = type(self).__name__
        super().__init__(
            n_in,
            n_out,
            kernel,
            activation,
            stride,
            padding,
            dilation,
            groups,
            bias,
            init,
            bias_init,
            slope,
            name,
        )
        self._transposed = transposed(op, kernel, stride, padding, output_padding, dilation)

    @property
    def n_in(self) -> int | None:
        """Channels of the input; None while they are not known."""
        weight = self._segments.get("weight")
        return self._n_in if weight is None else weight.shape[0]

    @property
    def output_padding(self) -> Pair:
        """Rows and columns more than the windows reach."""
        return self._transposed.extra

    def build(self, input_shape: Shape) -> None:
        self.output_shape(input_shape)
        shape = (input_shape[-1], *self.kernel, self._n_out // self._groups)
        default = "he" if self.activation.name in activations.HE_KIN else "xavier"
        self.add_parameter("weight", shape, default if self._init is None else self._init)
        if self._use_bias:
            self.add_parameter("bias", (self._n_out,), self._bias_init)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"{self._window.op}: x has shape {shown(input_shape)}, not (N, H, W, n_in)")
        self._check_channels(input_shape)
        return self._transposed.output_shape(input_shape, self._n_out)

    def flops(self, input_shape: Shape) -> int:
        """2 H W n_in k_h k_w n_out / groups: taps that are cut off are counted."""
        height, width, channels = input_shape
        return 2 * height * width * channels * self.kernel[0] * self.kernel[1] * self._n_out // self._groups

    def _convolve(self, builder: "Builder", value: int, name: str) -> int:
        segments = self._segments
        weight = builder.parameter(segments["weight"])
        bias = builder.parameter(segments["bias"]) if "bias" in segments else None
        shape = self._transposed.output_shape(builder.dims(value), self._n_out)
        return builder.graph.conv_transpose2d(
            value,
            weight,
            bias,
            list(shape),
            list(self.stride),
            list(self._window.sides(*shape[:2])),
            list(self.dilation),
            self._groups,
            name,
            strict(),
        )

    def config(self) -> dict[str, Any]:
        return super().config() | {"output_padding": list(self.output_padding)}

    def _arguments(self) -> str:
        extra = self.output_padding
        return super()._arguments() + (f", output_padding={written(extra)}" if any(extra) else "")
