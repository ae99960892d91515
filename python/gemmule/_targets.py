"""Targets as the kernels of the losses take them."""

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, Shape, any_array, real_array
from .errors import DTypeError, ShapeError

_DISTRIBUTIONS = ("cross_entropy", "kl_divergence")  # of probabilities too
_SHARES = ("bce", *_DISTRIBUTIONS)  # targets in [0, 1]


def target_array(kind: str, y: ArrayLike, shape: Shape, dtype: str, what: str = "y") -> Array:
    """`y` as the kernels take it for predictions of `shape` (N, ...): int64 (N,) labels, or `dtype` of that
    shape.

    ShapeError where it does not fit, DTypeError for labels that are not integers, ValueError for labels out
    of range, probabilities beyond [0, 1], counts below 0 and signs that are none."""
    array = any_array(y, what)
    if array.ndim == 0 or len(array) != shape[0]:
        raise ShapeError(
            f"{kind}: {what} has shape {array.shape}, the prediction {shape}: one target a sample"
        )
    name = kind.removesuffix("_probabilities")
    if name in _DISTRIBUTIONS and shape[-1] < 2:
        hint = "; use bce_with_logits" if name == "cross_entropy" else ""
        raise ShapeError(f"{name}: one output of shape {shape} has no classes{hint}")
    takes_labels = name in ("cross_entropy", "hinge") or (name == "custom" and array.dtype.kind in "biu")
    if array.ndim == 1 and len(shape) == 2 and shape[-1] > 1 and takes_labels:
        return _labels(name, array, shape[-1], what)
    if array.ndim == 1 and shape[1:] == (1,):
        array = array.reshape(-1, 1)
    if array.shape != shape:
        hint = " (only cross_entropy and hinge take labels)" if array.ndim == 1 else ""
        raise ShapeError(f"{kind}: {what} has shape {array.shape}, the prediction {shape}{hint}")
    target = real_array(array, dtype, what)
    if name.startswith(_SHARES):
        _require(kind, target, (target >= 0) & (target <= 1), what, "targets lie in [0, 1]")
    if name.startswith("poisson"):
        _require(kind, target, target >= 0, what, "targets are counts, not negative")
    return _signs(target, what) if name == "hinge" else target


def _signs(target: Array, what: str) -> Array:
    """-1 and 1, from these or from 0 and 1."""
    if (target == 0).any() and ((target == 0) | (target == 1)).all():
        signs: Array = 2 * target - 1
        return signs
    _require("hinge", target, abs(target) == 1, what, "targets are -1 and 1, or 0 and 1")
    return target


def _require(kind: str, target: Array, good: Array, what: str, rule: str) -> None:
    """ValueError that names the first value that is not good; NaN is not."""
    if not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{kind}: {what} holds {target[at]:g} at {at}; {rule}")


def _labels(name: str, array: Array, classes: int, what: str) -> Array:
    if array.dtype.kind not in "biu":
        raise DTypeError(
            f"{name}: {what} has dtype {array.dtype}; labels are integers (see {what}.astype(int)), "
            f"or rows (N, {classes})"
        )
    outside = (array < 0) | (array >= classes)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"{name}: {what} holds label {array[at]} at {at}; {classes} classes have 0..{classes - 1}"
        )
    return np.require(array, np.int64, ("C", "A"))
