"""Images of other sizes, and with whole channels dropped, as functions on NumPy arrays, which users meet in
`gemmule.ops`.

Arguments, sizes and errors are those of the layers, layouts those of `gemmule.ops.conv2d`. A batch may be
empty.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from . import _core, building
from ._image_arrays import filled, image_shape, images_of
from ._layout import checked_layout
from ._operands import common, require_position
from ._resizing import Resizing, ScaleLike, adaptive, upsampling
from ._windows import PairLike, frame
from .arrays import Array, fraction
from .errors import ShapeError


def zero_pad2d(
    x: ArrayLike, padding: int | Sequence[int], out: Array | None = None, layout: str = "channels_last"
) -> Array:
    """Images with zeros around them: x (N, H, W, C) -> (N, top + H + bottom, left + W + right, C). padding: a
    number, (height, width), or (top, bottom, left, right)."""
    op = "zero_pad2d"
    sides = frame(padding, f"{op}: padding")
    images, first = _given(op, "x", x, layout)
    count, height, width, channels = images.shape
    shape = image_shape(op, (count, height + sum(sides[:2]), width + sum(sides[2:]), channels), False)

    def write(y: Array) -> None:
        _core.zero_pad2d(images, y, list(sides))

    return filled(op, out, shape, images.dtype, first, write, images)


def zero_pad2d_backward(
    dy: ArrayLike, padding: int | Sequence[int], out: Array | None = None, layout: str = "channels_last"
) -> Array:
    """dx: dy (N, top + H + bottom, left + W + right, C) without its frame."""
    op = "zero_pad2d_backward"
    sides = frame(padding, f"{op}: padding")
    grad, first = _given(op, "dy", dy, layout)
    count, height, width, channels = grad.shape
    shape = count, height - sum(sides[:2]), width - sum(sides[2:]), channels
    if min(shape[1:]) < 1:
        raise ShapeError(f"{op}: dy has shape {grad.shape}, which padding {sides} leaves nothing of")

    def write(dx: Array) -> None:
        _core.zero_pad2d_backward(grad, dx, list(sides))

    return filled(op, out, shape, grad.dtype, first, write, grad)


def upsample2d(
    x: ArrayLike,
    scale: ScaleLike | None = None,
    size: PairLike | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """Images of another size, as `gemmule.Upsample`: x (N, H, W, C) -> (N, H', W', C)."""
    return _resized("upsample2d", upsampling("upsample2d", scale, size, mode, align_corners), x, out, layout)


def upsample2d_backward(
    dy: ArrayLike,
    shape: Sequence[int],
    scale: ScaleLike | None = None,
    size: PairLike | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """dx, of x's `shape` in the layout: every pixel gets its share of the dy that it is in."""
    op = "upsample2d_backward"
    return _resized_backward(op, upsampling(op, scale, size, mode, align_corners), dy, shape, out, layout)


def adaptive_avg_pool2d(
    x: ArrayLike, size: PairLike, out: Array | None = None, layout: str = "channels_last"
) -> Array:
    """Means over `size` bins, as `gemmule.AdaptiveAvgPool2d`: x (N, H, W, C) -> (N, H', W', C)."""
    return _resized("adaptive_avg_pool2d", adaptive("adaptive_avg_pool2d", size), x, out, layout)


def adaptive_avg_pool2d_backward(
    dy: ArrayLike,
    shape: Sequence[int],
    size: PairLike,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """dx, of x's `shape` in the layout: every pixel gets its share of the dy of the bins that it is in."""
    op = "adaptive_avg_pool2d_backward"
    return _resized_backward(op, adaptive(op, size), dy, shape, out, layout)


def dropout2d(
    x: ArrayLike,
    rate: float,
    rng: Any,
    step: int = 0,
    layer: int = 0,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """x mask / (1 - rate), whole channels of a sample at once, the mask drawn at (step, layer, sample,
    channel) of the Philox stream that `rng`, a seed, names: that of `dropout` for (N, C).

    Its backward is the same call on the gradient. x (N, H, W, C)."""
    op = "dropout2d"
    rate = fraction(rate, f"{op}: rate")
    require_position(op, step, layer)
    images, first = _given(op, "x", x, layout)
    key = building.philox_key(rng)

    def write(y: Array) -> None:
        _core.dropout2d(images, y, rate, key, step, layer)

    return filled(op, out, images.shape, images.dtype, first, write, images)


def _given(op: str, name: str, array: ArrayLike, layout: str) -> tuple[Array, bool]:
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    (images,) = common(op, **{name: array})
    return images_of(op, name, images, first), first


def _resized(op: str, made: Resizing, x: ArrayLike, out: Array | None, layout: str) -> Array:
    images, first = _given(op, "x", x, layout)

    def write(y: Array) -> None:
        _core.resize2d(images, y, made.kind, made.steps())

    return filled(op, out, made.output_shape(images.shape), images.dtype, first, write, images)


def _resized_backward(
    op: str, made: Resizing, dy: ArrayLike, shape: Sequence[int], out: Array | None, layout: str
) -> Array:
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    dims = image_shape(op, shape, first)
    (grad,) = common(op, dy=dy)
    grad = images_of(op, "dy", grad, first, made.output_shape(dims))

    def write(dx: Array) -> None:
        _core.resize2d_backward(grad, dx, made.kind, made.steps())

    return filled(op, out, dims, grad.dtype, first, write, grad)
