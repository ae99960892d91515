"""Convolution and pooling of images as functions on NumPy arrays, which users meet in `gemmule.ops`.

layout: "channels_last" for images (N, H, W, C), "channels_first" for (N, C, H, W), in and out. Filters are
(n_out, k_h, k_w, n_in / groups) in both. Kernels work channels-last: a result in channels-first is a view of
one that lies so, and goes into the next function uncopied. Arguments, sizes and errors of the windows are
those of `gemmule.Conv2d` and `gemmule.MaxPool2d`. A batch may be empty.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._image_arrays import filled, image_shape, images_of
from ._layout import batch_to_first, checked_layout
from ._operands import builtin, common, require_shape
from ._precision import strict
from ._windows import MAX_TAPS, PaddingLike, PairLike, Window, checked_groups, pooling, window
from .arrays import Array, Shape, real_array
from .errors import ShapeError


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    activation: str = "identity",
    slope: float | None = None,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """act(x * W + b), the cross-correlation of `gemmule.Conv2d`: x (N, H, W, n_in), weight (n_out, k_h, k_w,
    n_in / groups), bias (n_out,) -> (N, H', W', n_out). Activations as in `gemm`."""
    first = checked_layout(layout, "conv2d: layout") == "channels_first"
    act = builtin(activation, slope)
    given = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    images, filters, *rows = common("conv2d", **given)
    images = images_of("conv2d", "x", images, first)
    made, shape = _convolution("conv2d", images, filters, stride, padding, dilation, groups)
    row = None
    if rows:
        require_shape("conv2d", "bias", rows[0], filters.shape[:1])
        row = np.ascontiguousarray(rows[0])
    filters = np.ascontiguousarray(filters)

    def write(h: Array) -> None:
        where = _steps(made, images)
        _core.conv2d(images, filters, row, h, *where, groups, act.name, act.slope, strict())

    inputs = (images, filters) if row is None else (images, filters, row)
    return filled("conv2d", out, shape, images.dtype, first, write, *inputs)


def conv2d_backward(
    dz: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    layout: str = "channels_last",
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of the convolution without its activation: dz (N, H', W', n_out), x and weight as
    in `conv2d`."""
    op = "conv2d_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    grad, images, filters = common(op, dz=dz, x=x, weight=weight)
    images = images_of(op, "x", images, first)
    made, shape = _convolution(op, images, filters, stride, padding, dilation, groups)
    grad = images_of(op, "dz", grad, first, shape)
    filters = np.ascontiguousarray(filters)
    dx, dweight = np.zeros_like(images), np.zeros_like(filters)
    dbias = np.zeros(len(filters), filters.dtype)
    if len(images):
        where = _steps(made, images)
        _core.conv2d_input_grad(grad, filters, dx, *where, groups, strict())
        _core.conv2d_weight_grad(images, grad, dweight, *where, groups, strict())
        _core.sum_rows(grad.reshape(-1, len(filters)), dbias, False)
    return batch_to_first(dx) if first else dx, dweight, dbias


def max_pool2d(
    x: ArrayLike,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """The largest value in each window of each channel, as `gemmule.MaxPool2d`: x (N, H, W, C) -> (N, H', W',
    C). NaN where a window holds one."""
    made, images, first = _pooled("max_pool2d", x, kernel, stride, padding, layout)

    def write(y: Array) -> None:
        _core.max_pool2d(images, y, None, *_geometry(made, images))

    shape = made.output_shape(images.shape, images.shape[3])
    return filled("max_pool2d", out, shape, images.dtype, first, write, images)


def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """dx, where the largest pixel of each window, the first of equal ones, gets that window's dy; pixels that
    several windows chose get the sum."""
    op = "max_pool2d_backward"
    grad, images = common(op, dy=dy, x=x)
    made, images, first = _pooled(op, images, kernel, stride, padding, layout)
    shape = made.output_shape(images.shape, images.shape[3])
    grad = images_of(op, "dy", grad, first, shape)

    def write(dx: Array) -> None:
        y, places = np.empty(shape, images.dtype), np.empty(shape, np.uint8)
        where = _geometry(made, images)
        _core.max_pool2d(images, y, places, *where)
        _core.max_pool2d_backward(grad, places, dx, *where)

    return filled(op, out, images.shape, images.dtype, first, write, images, grad)


def avg_pool2d(
    x: ArrayLike,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    count_padding: bool = True,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """The mean over each window of each channel, as `gemmule.AvgPool2d`: x (N, H, W, C) -> (N, H', W', C).
    count_padding: whether the padding counts as zeros, or not at all."""
    made, images, first = _pooled("avg_pool2d", x, kernel, stride, padding, layout)

    def write(y: Array) -> None:
        _core.avg_pool2d(images, y, *_geometry(made, images), bool(count_padding))

    shape = made.output_shape(images.shape, images.shape[3])
    return filled("avg_pool2d", out, shape, images.dtype, first, write, images)


def avg_pool2d_backward(
    dy: ArrayLike,
    shape: Sequence[int],
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    count_padding: bool = True,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """dx, of x's `shape` in the layout: every pixel gets its share of the dy of the windows that it is in."""
    op = "avg_pool2d_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    made = pooling(op, kernel, stride, padding)
    dims = image_shape(op, shape, first)
    (grad,) = common(op, dy=dy)
    grad = images_of(op, "dy", grad, first, made.output_shape(dims, dims[3]))

    def write(dx: Array) -> None:
        _core.avg_pool2d_backward(grad, dx, *_geometry(made, dx), bool(count_padding))

    return filled(op, out, dims, grad.dtype, first, write, grad)


def global_avg_pool2d(x: ArrayLike, out: Array | None = None, layout: str = "channels_last") -> Array:
    """The mean of each channel over all pixels: x (N, H, W, C) -> (N, C)."""
    op = "global_avg_pool2d"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    (images,) = common(op, x=x)
    images = images_of(op, "x", images, first)
    count, height, width, channels = images.shape
    made = pooling(op, (height, width), None, 0)

    def write(y: Array) -> None:
        _core.avg_pool2d(images, y.reshape(count, 1, 1, channels), *_geometry(made, images), True)

    return filled(op, out, (count, channels), images.dtype, False, write, images)


def global_avg_pool2d_backward(
    dy: ArrayLike, shape: Sequence[int], out: Array | None = None, layout: str = "channels_last"
) -> Array:
    """dx = dy / (H W) at every pixel, of x's `shape` in the layout; dy (N, C)."""
    op = "global_avg_pool2d_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    dims = image_shape(op, shape, first)
    (grad,) = common(op, dy=dy)
    require_shape(op, "dy", grad, (dims[0], dims[3]))
    grad = real_array(grad, grad.dtype.name, op).reshape(dims[0], 1, 1, dims[3])
    made = pooling(op, dims[1:3], None, 0)

    def write(dx: Array) -> None:
        _core.avg_pool2d_backward(grad, dx, *_geometry(made, dx), True)

    return filled(op, out, dims, grad.dtype, first, write, grad)


# -- checks --------------------------------------------------------------------------------------------------


def _convolution(
    op: str, images: Array, filters: Array, stride: Any, padding: Any, dilation: Any, groups: Any
) -> tuple[Window, Shape]:
    """The window and the output's shape."""
    if filters.ndim != 4 or filters.size == 0:
        raise ShapeError(
            f"{op}: weight has shape {filters.shape}; it must be (n_out, k_h, k_w, n_in / groups), not empty"
        )
    channels, n_out = images.shape[3], len(filters)
    made = window(op, filters.shape[1:3], stride, padding, dilation)
    checked_groups(op, groups, channels, n_out)
    if filters.shape[3] * groups != channels:
        raise ShapeError(
            f"{op}: x has {channels} channels, weight {filters.shape} with groups={groups} takes "
            f"{filters.shape[3] * groups}"
        )
    return made, made.output_shape(images.shape, n_out)


def _pooled(
    op: str, x: ArrayLike, kernel: Any, stride: Any, padding: Any, layout: str
) -> tuple[Window, Array, bool]:
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    made = pooling(op, kernel, stride, padding, MAX_TAPS if op.startswith("max") else None)
    (images,) = common(op, x=x)
    return made, images_of(op, "x", images, first), first


def _steps(made: Window, images: Array) -> tuple[list[int], list[int], list[int]]:
    """stride, padding and dilation as the kernels of convolution take them."""
    _, height, width, _ = images.shape
    return list(made.stride), list(made.sides(height, width)), list(made.dilation)


def _geometry(made: Window, images: Array) -> tuple[list[int], list[int], list[int]]:
    """kernel, stride and padding as those of pooling take them."""
    stride, sides, _ = _steps(made, images)
    return list(made.kernel), stride, sides
