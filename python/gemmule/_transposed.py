"""Transposed convolution of images as functions on NumPy arrays, which users meet in `gemmule.ops`.

Arguments, sizes and errors are those of `gemmule.ConvTranspose2d`, layouts those of `gemmule.ops.conv2d`. A
batch may be empty.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._image_arrays import filled, images_of
from ._layout import batch_to_first, checked_layout
from ._operands import builtin, common, require_shape
from ._precision import strict
from ._windows import PaddingLike, PairLike, Transposed, checked_groups, transposed
from .arrays import Array, Shape
from .errors import ShapeError


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    output_padding: PairLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    activation: str = "identity",
    slope: float | None = None,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """act(z + b), where z is what the convolution with these filters would carry back to its image: x (N, H,
    W, n_in), weight (n_in, k_h, k_w, n_out / groups), bias (n_out,) -> (N, H', W', n_out), H' = (H - 1) s -
    top - bottom + d (k - 1) + output_padding + 1. Activations as in `gemm`."""
    op = "conv_transpose2d"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    act = builtin(activation, slope)
    given = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    images, filters, *rows = common(op, **given)
    images = images_of(op, "x", images, first)
    made, shape = _geometry(op, images, filters, stride, padding, output_padding, dilation, groups)
    row = None
    if rows:
        require_shape(op, "bias", rows[0], shape[3:])
        row = np.ascontiguousarray(rows[0])
    filters = np.ascontiguousarray(filters)

    def write(h: Array) -> None:
        where = _steps(made, shape)
        _core.conv_transpose2d(images, filters, row, h, *where, groups, act.name, act.slope, strict())

    inputs = (images, filters) if row is None else (images, filters, row)
    return filled(op, out, shape, images.dtype, first, write, *inputs)


def conv_transpose2d_backward(
    dz: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    output_padding: PairLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    layout: str = "channels_last",
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of it without its activation: dz (N, H', W', n_out), x and weight as in
    `conv_transpose2d`. dx is the convolution of dz."""
    op = "conv_transpose2d_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    grad, images, filters = common(op, dz=dz, x=x, weight=weight)
    images = images_of(op, "x", images, first)
    made, shape = _geometry(op, images, filters, stride, padding, output_padding, dilation, groups)
    grad = images_of(op, "dz", grad, first, shape)
    filters = np.ascontiguousarray(filters)
    dx, dweight, dbias = np.zeros_like(images), np.zeros_like(filters), np.zeros(shape[3], filters.dtype)
    if len(images):
        where = _steps(made, shape)
        _core.conv2d(grad, filters, None, dx, *where, groups, "identity", 1.0, strict())
        _core.conv2d_weight_grad(grad, images, dweight, *where, groups, strict())
        _core.sum_rows(grad.reshape(-1, shape[3]), dbias, False)
    return batch_to_first(dx) if first else dx, dweight, dbias


def _geometry(
    op: str,
    images: Array,
    filters: Array,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple[Transposed, Shape]:
    """The window and the output's shape."""
    if filters.ndim != 4 or filters.size == 0:
        raise ShapeError(
            f"{op}: weight has shape {filters.shape}; it must be (n_in, k_h, k_w, n_out / groups), not empty"
        )
    made = transposed(op, filters.shape[1:3], stride, padding, output_padding, dilation)
    channels = images.shape[3]
    n_out = filters.shape[3] * checked_groups(op, groups, channels, 0)
    if len(filters) != channels:
        raise ShapeError(f"{op}: x has {channels} channels, weight {filters.shape} takes {len(filters)}")
    return made, made.output_shape(images.shape, n_out)


def _steps(made: Transposed, shape: Shape) -> tuple[list[int], list[int], list[int]]:
    """stride, padding and dilation as kernels take them, for an output of this shape."""
    where = made.window
    return list(where.stride), list(where.sides(*shape[1:3])), list(where.dilation)
