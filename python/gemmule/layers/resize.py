"""Images of another size: upsampling, and zeros around them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._resizing import ScaleLike, upsampling
from .._windows import Pair, PairLike, Sides, frame, written
from ..arrays import Shape, shown
from ..errors import ShapeError
from .base import Layer

if TYPE_CHECKING:
    from ..lowering import Builder


class Upsample(Layer):
    """Images of another size, every channel by itself: x (N, H, W, C) -> y (N, H', W', C).

    scale: a number or a pair (height, width), above 0: H' = floor(H scale). Below 1 it makes them smaller.
    size: (H', W'), or a number for both. Either of the two is given.
    mode: "nearest", y[p] = x[floor(p / scale)], or "bilinear", where y[p] is interpolated between the two
        pixels beside the place u = (p + 1/2) / scale - 1/2, moved to the image where it lies outside: along
        each axis (1 - f) x[i] + f x[i + 1] with i = floor(u), f = u - i. The scale is H' / H for a size.
    align_corners: bilinear, and u = p (H - 1) / (H' - 1): the outermost pixels stay where they are.

    TypeError where both or neither of scale and size are given, ValueError for another mode, a scale that is
    not above 0 and align_corners with "nearest"; ShapeError where nothing is left. PyTorch's conventions.
    """

    def __init__(
        self,
        scale: ScaleLike | None = None,
        size: PairLike | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
        name: str | None = None,
    ) -> None:
        self._resizing = upsampling("Upsample", scale, size, mode, align_corners)
        self.name = name

    @property
    def scale(self) -> tuple[float, float] | None:
        """(down, across), None where a size is given."""
        return self._resizing.scale

    @property
    def size(self) -> Pair | None:
        """(H', W'), None where a scale is given."""
        return self._resizing.size

    @property
    def mode(self) -> str:
        """ "nearest" or "bilinear"."""
        return "nearest" if self._resizing.kind == "nearest" else "bilinear"

    @property
    def align_corners(self) -> bool:
        """Whether the outermost pixels stay where they are."""
        return self._resizing.kind == "corners"

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"Upsample: x has shape {shown(input_shape)}, not (N, H, W, C)")
        return self._resizing.output_shape(input_shape)

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        made = self._resizing
        shape = made.output_shape(builder.dims(value))
        return builder.graph.resize2d(value, list(shape), made.kind, made.steps(), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {
            "scale": self.scale and list(self.scale),
            "size": self.size and list(self.size),
            "mode": self.mode,
            "align_corners": self.align_corners,
        }

    def _arguments(self) -> str:
        if self.scale is not None:
            down, across = (f"{factor:g}" for factor in self.scale)
            parts = [down if down == across else f"({down}, {across})"]
        else:
            assert self.size is not None
            parts = [f"size={written(self.size)}"]
        if self.mode != "nearest":
            parts.append(f"mode={self.mode!r}")
        if self.align_corners:
            parts.append("align_corners=True")
        if self.name:
            parts.append(f"name={self.name!r}")
        return ", ".join(parts)


class ZeroPad2d(Layer):
    """Images with zeros around them: x (N, H, W, C) -> y (N, H', W', C) with H' = top + H + bottom,
    W' = left + W + right.

    padding: a number, (height, width), or (top, bottom, left, right); ValueError where it is negative. A
    convolution's own padding costs nothing, this is a copy.
    """

    def __init__(self, padding: int | Sequence[int], name: str | None = None) -> None:
        self._padding = frame(padding, "ZeroPad2d: padding")
        self.name = name

    @property
    def padding(self) -> Sides:
        """(top, bottom, left, right)."""
        return self._padding

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"ZeroPad2d: x has shape {shown(input_shape)}, not (N, H, W, C)")
        height, width, channels = input_shape
        shape = height + sum(self._padding[:2]), width + sum(self._padding[2:]), channels
        if math.prod(shape) * 8 >= 2**63:
            raise ShapeError(f"ZeroPad2d: the output's shape {shape} overflows 64 bits")
        return shape

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        return builder.graph.zero_pad2d(value, list(self._padding), f"{name}.h")

    def config(self) -> dict[str, Any]:
        return {"padding": list(self._padding)}

    def _arguments(self) -> str:
        return written(self._padding) + (f", name={self.name!r}" if self.name else "")
