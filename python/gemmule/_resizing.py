"""Other sizes of images: the arguments of upsampling and of adaptive pooling, and the sizes they give."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ._windows import Pair, pair
from .arrays import Shape, positive, shown, unknown_name
from .errors import ShapeError

ScaleLike = float | Sequence[float]

MODES = ("nearest", "bilinear")


class Resizing(NamedTuple):
    """A checked resizing, of `op` in messages. kind: the kernel's; either of size and scale is given."""

    op: str
    kind: str
    size: Pair | None
    scale: tuple[float, float] | None

    def output_shape(self, shape: Shape) -> Shape:
        """(..., H', W', C) from (..., H, W, C); ShapeError where there are no pixels, or too many."""
        if len(shape) < 3:
            raise ShapeError(f"{self.op}: x has shape {shown(shape)}, not (N, H, W, C)")
        height, width, channels = shape[-3:]
        if self.size is not None:
            pixels: tuple[float, float] = self.size
        else:
            assert self.scale is not None
            pixels = height * self.scale[0], width * self.scale[1]
        if not 1 <= min(pixels) <= max(pixels) < 2**30:
            raise ShapeError(
                f"{self.op}: an image of {height} x {width} pixels, {self.scale} times as large, has none or "
                "2**30 of them along an axis"
            )
        result = *shape[:-3], math.floor(pixels[0]), math.floor(pixels[1]), channels
        if math.prod(result) * 8 >= 2**63:
            raise ShapeError(f"{self.op}: the output's shape {result} overflows 64 bits")
        return result

    def steps(self) -> list[float]:
        """The scale as kernels take it, 0 where the sizes decide."""
        return [0.0, 0.0] if self.scale is None or self.kind == "corners" else list(self.scale)


def upsampling(op: str, scale: Any, size: Any, mode: Any, align_corners: Any) -> Resizing:
    """The resizing that these arguments describe; TypeError and ValueError name the one at fault."""
    if mode not in MODES:
        raise unknown_name(f"{op}: mode", mode, MODES)
    if (scale is None) == (size is None):
        raise TypeError(f"{op} takes a scale or a size, not {'both' if size is not None else 'neither'}")
    if align_corners and mode == "nearest":
        raise ValueError(f"{op}: align_corners is for mode 'bilinear'")
    kind = "nearest" if mode == "nearest" else "corners" if align_corners else "linear"
    if scale is None:
        return Resizing(op, kind, pair(size, f"{op}: size"), None)
    both = tuple(scale) if isinstance(scale, Sequence) and not isinstance(scale, str) else (scale, scale)
    if len(both) != 2:
        raise TypeError(f"{op}: scale must be a number or 2 of them, not {scale!r}")
    down, across = (positive(factor, f"{op}: scale") for factor in both)
    return Resizing(op, kind, None, (down, across))


def adaptive(op: str, size: Any) -> Resizing:
    """Means over as many bins as `size` says."""
    return Resizing(op, "mean", pair(size, f"{op}: size"), None)
