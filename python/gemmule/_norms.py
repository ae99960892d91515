"""Normalization as functions on NumPy arrays, which users meet in `gemmule.ops`.

layout: "channels_last" for (N, ..., C), "channels_first" for (N, C, ...), in and out. Formulas are those of
`gemmule.BatchNorm`, `gemmule.GroupNorm` and `gemmule.LayerNorm`. Without weight and bias they are 1 and 0.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._image_arrays import filled
from ._layout import batch_to_first, batch_to_last, checked_layout
from ._operands import common, into, require_shape
from .arrays import Array, Shape, empty, positive, real_array
from .errors import ShapeError
from .layers.base import checked_shape, positive_int


def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
    eps: float = 1e-5,
    out: Array | None = None,
    layout: str = "channels_last",
) -> tuple[Array, Array, Array]:
    """(y, mean, var) with y = weight (x - mean) / sqrt(var + eps) + bias: x (N, ..., C), the others (C,).

    mean and var (divided by the number of elements) are those of x, over all axes but the channels, or those
    given. ShapeError where they are to be those of an empty x, ValueError where only one of them is given."""
    op = "batch_norm"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    eps = positive(eps, f"{op}: eps")
    given = _given(weight=weight, bias=bias, mean=mean, var=var)
    data, rows = _operands(op, first, {"x": x}, given)
    (array,) = data
    stats = _statistics(op, array, rows, eps)

    def write(y: Array) -> None:
        flat = array.reshape(-1, array.shape[-1])
        _core.batch_norm(flat, stats, rows.get("weight"), rows.get("bias"), y.reshape(flat.shape))

    inputs = (array, *rows.values())
    y = filled(op, out, array.shape, array.dtype, first, write, *inputs)
    if "mean" in rows:
        return y, rows["mean"], rows["var"]
    count = array.size // array.shape[-1]
    biased = stats[2].astype(np.float64) * ((count - 1) / count) if count > 1 else np.zeros(array.shape[-1])
    return y, stats[0], biased.astype(array.dtype)


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
    eps: float = 1e-5,
    layout: str = "channels_last",
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of `batch_norm`: dx through the statistics too, unless mean and var are given, and
    so are constants."""
    op = "batch_norm_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    eps = positive(eps, f"{op}: eps")
    data, rows = _operands(op, first, {"dy": dy, "x": x}, _given(weight=weight, mean=mean, var=var))
    grad, array = data
    stats = _statistics(op, array, rows, eps)
    channels = array.shape[-1]
    dx, sums = empty(array.shape, array.dtype), np.zeros((2, channels), array.dtype)
    if array.size:
        flat, flat_grad = array.reshape(-1, channels), grad.reshape(-1, channels)
        _core.batch_norm_sums(flat_grad, flat, stats, sums)
        through = None if "mean" in rows else sums
        _core.batch_norm_grad(flat_grad, flat, stats, rows.get("weight"), through, dx.reshape(flat.shape))
    return batch_to_first(dx) if first else dx, sums[1], sums[0]


def group_norm(
    x: ArrayLike,
    groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    out: Array | None = None,
    layout: str = "channels_last",
) -> Array:
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and var those of a group of a sample's channels,
    over all pixels: x (N, ..., C), weight and bias (C,).

    groups = C normalizes every channel by itself (instance normalization)."""
    op = "group_norm"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    eps = positive(eps, f"{op}: eps")
    (array,), rows = _operands(op, first, {"x": x}, _given(weight=weight, bias=bias))
    groups = checked_groups(op, groups, array.shape[-1])
    weights, biases = _factors(rows, array.shape[-1:], array.dtype)

    def write(y: Array) -> None:
        samples = _samples(array)
        _core.group_norm(samples, groups, weights, biases, eps, y.reshape(samples.shape), None)

    return filled(op, out, array.shape, array.dtype, first, write, array, *rows.values())


def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    groups: int,
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    layout: str = "channels_last",
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of `group_norm`."""
    op = "group_norm_backward"
    first = checked_layout(layout, f"{op}: layout") == "channels_first"
    eps = positive(eps, f"{op}: eps")
    (grad, array), rows = _operands(op, first, {"dy": dy, "x": x}, _given(weight=weight))
    groups = checked_groups(op, groups, array.shape[-1])
    samples = _samples(array)
    dx, sums = _within(grad.reshape(samples.shape), samples, groups, rows.get("weight"), eps)
    dx = dx.reshape(array.shape)
    return batch_to_first(dx) if first else dx, sums[1], sums[0]


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    shape: int | Shape | None = None,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and var over the last axes, those of `shape`, for
    each place along the others.

    x (..., *shape), weight and bias of `shape`, which is weight's or bias's, or else the last axis alone."""
    op = "layer_norm"
    eps = positive(eps, f"{op}: eps")
    array, rows, last = _normalized(op, shape, {"x": x}, _given(weight=weight, bias=bias))
    data = real_array(array[0], array[0].dtype.name, op)
    weights, biases = _factors(rows, last, data.dtype)

    def write(y: Array) -> None:
        if data.size:
            samples = data.reshape(-1, 1, int(np.prod(last)))
            _core.group_norm(samples, 1, weights, biases, eps, y.reshape(samples.shape), None)

    return into(op, out, data, write, data, *rows.values())


def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    shape: int | Shape | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of `layer_norm`."""
    op = "layer_norm_backward"
    eps = positive(eps, f"{op}: eps")
    arrays, rows, last = _normalized(op, shape, {"dy": dy, "x": x}, _given(weight=weight))
    grad, data = (real_array(array, array.dtype.name, op) for array in arrays)
    require_shape(op, "dy", grad, data.shape)
    width = int(np.prod(last))
    weights = rows["weight"].reshape(-1) if "weight" in rows else None
    flat = data.reshape(-1, 1, width)
    dx, sums = _within(grad.reshape(flat.shape), flat, 1, weights, eps)
    return dx.reshape(data.shape), sums[1].reshape(last), sums[0].reshape(last)


# -- checks --------------------------------------------------------------------------------------------------


def checked_groups(op: str, groups: Any, channels: int) -> int:
    """groups, where it divides the channels; TypeError and ValueError name it."""
    count = positive_int(groups, f"{op}: groups")
    if channels % count:
        raise ValueError(f"{op}: groups is {count}, which does not divide {channels} channels")
    return count


def _given(**values: ArrayLike | None) -> dict[str, ArrayLike]:
    return {name: value for name, value in values.items() if value is not None}


def _operands(
    op: str, first: bool, data: dict[str, ArrayLike], rows: dict[str, ArrayLike]
) -> tuple[list[Array], dict[str, Array]]:
    """`data` channels-last and C-contiguous, alike, and rows (C,) by name, all of one type."""
    arrays = dict(zip([*data, *rows], common(op, **data, **rows), strict=True))
    x = arrays["x"]
    if x.ndim < 2 or 0 in x.shape[1:]:
        axes = "(N, C) or (N, C, ...)" if first else "(N, C) or (N, ..., C)"
        raise ShapeError(f"{op}: x has shape {x.shape}; it must be {axes}, with channels")
    for name in data:
        require_shape(op, name, arrays[name], x.shape)
    channels = x.shape[1 if first else -1]
    for name in rows:
        require_shape(op, name, arrays[name], (channels,))
    turned = [batch_to_last(arrays[name]) if first else arrays[name] for name in data]
    return (
        [real_array(array, array.dtype.name, op) for array in turned],
        {name: np.ascontiguousarray(arrays[name]) for name in rows},
    )


def _statistics(op: str, x: Array, rows: dict[str, Array], eps: float) -> Array:
    """(3, C): mean, 1 / sqrt(var + eps), unbiased variance; of x, or of what is given."""
    if ("mean" in rows) != ("var" in rows):
        raise ValueError(
            f"{op}: mean and var go together, only {'mean' if 'mean' in rows else 'var'} is given"
        )
    stats = np.empty((3, x.shape[-1]), x.dtype)
    if "mean" in rows:
        stats[0], stats[2] = rows["mean"], rows["var"]
        stats[1] = 1 / np.sqrt(rows["var"].astype(np.float64) + eps)
    elif x.size == 0:
        raise ShapeError(f"{op}: x has shape {x.shape}, of which there is no mean")
    else:
        _core.batch_stats(x.reshape(-1, x.shape[-1]), eps, stats)
    return stats


def _normalized(
    op: str, shape: int | Shape | None, data: dict[str, ArrayLike], rows: dict[str, ArrayLike]
) -> tuple[list[Array], dict[str, Array], Shape]:
    """data and rows in one type, and the last axes, over which is normalized."""
    arrays = dict(zip([*data, *rows], common(op, **data, **rows), strict=True))
    x = arrays["x"]
    if shape is not None:
        last = checked_shape(shape, f"{op}: shape")
    elif rows:
        last = arrays[next(iter(rows))].shape
    else:
        last = x.shape[-1:]
    if not last or 0 in last or x.shape[max(x.ndim - len(last), 0) :] != last:
        raise ShapeError(f"{op}: x has shape {x.shape}; its last axes must be {last}, and not empty")
    for name in rows:
        require_shape(op, name, arrays[name], last)
    return (
        [arrays[name] for name in data],
        {name: np.ascontiguousarray(arrays[name]) for name in rows},
        last,
    )


def _factors(rows: dict[str, Array], shape: Shape, dtype: np.dtype[Any]) -> tuple[Array | None, Array | None]:
    """weight and bias as vectors, none of them or both."""
    if not rows:
        return None, None
    weight, bias = rows.get("weight", np.ones(shape, dtype)), rows.get("bias", np.zeros(shape, dtype))
    return weight.reshape(-1), bias.reshape(-1)


def _samples(x: Array) -> Array:
    """(samples, pixels, channels)"""
    return x.reshape(len(x), int(np.prod(x.shape[1:-1])), x.shape[-1])


def _within(
    grad: Array, samples: Array, groups: int, weight: Array | None, eps: float
) -> tuple[Array, Array]:
    """dx, and the sums (2, C) that are dbias and dweight."""
    dx, sums = empty(samples.shape, samples.dtype), np.zeros((2, samples.shape[2]), samples.dtype)
    if samples.size:
        stats = np.empty((len(samples), groups, 2), samples.dtype)
        _core.group_norm(samples, groups, None, None, eps, dx, stats)  # for the statistics alone
        _core.group_norm_sums(grad, samples, groups, stats, sums)
        _core.group_norm_grad(grad, samples, groups, stats, weight, dx)
    return dx, sums
