"""Pooling of images."""

from typing import TYPE_CHECKING, Any, ClassVar

from .._resizing import adaptive
from .._windows import MAX_TAPS, PaddingLike, Pair, PairLike, Sides, pooling, written
from ..arrays import Shape, shown
from ..errors import ShapeError
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class _Pool(Layer):
    """What both kinds share: a window over every channel by itself."""

    _most_taps: ClassVar[int | None] = None

    def __init__(
        self,
        kernel: PairLike,
        stride: PairLike | None = None,
        padding: PaddingLike = 0,
        name: str | None = None,
    ) -> None:
        self._window = pooling(type(self).__name__, kernel, stride, padding, self._most_taps)
        self.name = name

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

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"{self._window.op}: x has shape {shown(input_shape)}, not (N, H, W, C)")
        return self._window.output_shape(input_shape, input_shape[-1])

    def _geometry(self, builder: "Builder", value: int) -> tuple[list[int], list[int], list[int]]:
        height, width, _ = builder.dims(value)
        return list(self.kernel), list(self.stride), list(self._window.sides(height, width))

    def config(self) -> dict[str, Any]:
        padding = self.padding
        return {
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "padding": padding if isinstance(padding, str) else list(padding),
        }

    def _arguments(self) -> str:
        parts = [written(self.kernel)]
        if self.stride != self.kernel:
            parts.append(f"stride={written(self.stride)}")
        if self.padding != (0, 0, 0, 0):
            parts.append(f"padding={written(self.padding)}")
        if self.name:
            parts.append(f"name={self.name!r}")
        return ", ".join(parts)


class MaxPool2d(_Pool):
    """The largest value in each window of each channel: x (N, H, W, C) -> y (N, H', W', C) with
    H' = floor((H + top + bottom - k_h) / s_h) + 1, and W' likewise. Beyond the edges there is nothing: a
    window takes the largest of the pixels it has. Of equal ones the first, row by row, gets the gradient.

    kernel k, stride s: a number, or a pair (height, width); stride None is the kernel's size. The kernel has
        at most 255 taps.
    padding: a number, (height, width), (top, bottom, left, right), "valid" for none or "same" for
        H' = ceil(H / s_h), see `Conv2d`; at most half the kernel on each side.

    ValueError for a kernel or stride below 1, a larger kernel or padding; ShapeError for images smaller than
    the kernel. PyTorch's rules.
    """

    _most_taps = MAX_TAPS

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        return builder.graph.max_pool2d(value, *self._geometry(builder, value), f"{name}.h")


class AvgPool2d(_Pool):
    """The mean over each window of each channel: x (N, H, W, C) -> y (N, H', W', C). Sizes, arguments and
    errors are those of `MaxPool2d`, but for a kernel of any size.

    count_padding: True divides by k_h k_w everywhere, so that the padding counts as zeros; False by the
        number of pixels that a window has.
    """

    def __init__(
        self,
        kernel: PairLike,
        stride: PairLike | None = None,
        padding: PaddingLike = 0,
        count_padding: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(kernel, stride, padding, name)
        self._count_padding = bool(count_padding)

    @property
    def count_padding(self) -> bool:
        """Whether the padding counts."""
        return self._count_padding

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        geometry = self._geometry(builder, value)
        return builder.graph.avg_pool2d(value, *geometry, self._count_padding, f"{name}.h")

    def config(self) -> dict[str, Any]:
        return super().config() | {"count_padding": self._count_padding}

    def _arguments(self) -> str:
        return super()._arguments() + ("" if self._count_padding else ", count_padding=False")


class GlobalAvgPool2d(Layer):
    """The mean of each channel over all pixels: x (N, H, W, C) -> y (N, C). Lin, Chen and Yan 2014."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"GlobalAvgPool2d: x has shape {shown(input_shape)}, not (N, H, W, C)")
        return (input_shape[-1],)

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        height, width, channels = builder.dims(value)
        size = [height, width]
        mean = builder.graph.avg_pool2d(value, size, size, [0, 0, 0, 0], True, f"{name}.mean")
        return builder.graph.reshape(mean, (channels,), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {}


class AdaptiveAvgPool2d(Layer):
    """Means over bins that divide the image, as many as the output has pixels: x (N, H, W, C) ->
    y (N, H', W', C), where the rows of bin p are floor(p H / H') up to ceil((p + 1) H / H') - 1, and the
    columns likewise. Bins overlap by a row where H' does not divide H.

    size: (H', W'), or a number for both; ValueError where it is below 1. PyTorch's rule.
    """

    def __init__(self, size: PairLike, name: str | None = None) -> None:
        self._resizing = adaptive("AdaptiveAvgPool2d", size)
        self.name = name

    @property
    def size(self) -> Pair:
        """(H', W')."""
        assert self._resizing.size is not None
        return self._resizing.size

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"AdaptiveAvgPool2d: x has shape {shown(input_shape)}, not (N, H, W, C)")
        return self._resizing.output_shape(input_shape)

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        made = self._resizing
        shape = made.output_shape(builder.dims(value))
        return builder.graph.resize2d(value, list(shape), made.kind, made.steps(), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {"size": list(self.size)}

    def _arguments(self) -> str:
        return written(self.size) + (f", name={self.name!r}" if self.name else "")
