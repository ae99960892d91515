"""Losses: functions on arrays that return (loss, gradient), and objects for `fit`.

With N samples of n outputs, p the prediction and t the target, each loss is a mean over samples:

    mse              1/N sum_i 1/n sum_j (p - t)^2
    half_mse         half of it
    mae              1/N sum_i 1/n sum_j |p - t|
    bce              1/N sum_i 1/n sum_j -(t log p + (1 - t) log(1 - p)), p in [0, 1]; logarithms end at -100
    bce_with_logits  the same of p = sigmoid(z), from z
    cross_entropy    1/N sum_i -log softmax(z)_label, or -sum_j t log softmax(z)_j for one-hot rows
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from .arrays import Array, Shape, any_array, real_array, unknown_name
from .errors import DTypeError, ShapeError

CLASSIFICATION = frozenset({"bce", "bce_with_logits", "cross_entropy", "cross_entropy_probabilities"})


class Loss:
    """A loss by name. Call it on (prediction, target) for (loss, gradient of the prediction)."""

    name: ClassVar[str]

    def kind(self, output: str | None) -> str:
        """The kernel's name, for a network whose output is made by the activation `output`."""
        return self.name

    @property
    def parameter(self) -> float:
        """The one number that the kernel takes, where it takes one."""
        return 0.0

    def lower(self, graph: _core.Graph, output: str | None) -> tuple[str, float]:
        """(kind, parameter) for a program of `graph`."""
        return self.kind(output), self.parameter

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
        kind, parameter = self.kind(None), self.parameter
        pred, y = arrays(kind, prediction, target)
        grad = np.empty_like(pred)
        _core.loss_grad(kind, parameter, pred, y, grad)
        return _core.loss(kind, parameter, pred, y), grad

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Loss) and other.config() == self.config()

    def __hash__(self) -> int:
        return hash((type(self), *self.config().items()))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


class MSE(Loss):
    """Mean squared error."""

    name = "mse"


class HalfMSE(Loss):
    """Half the mean squared error."""

    name = "half_mse"


class MAE(Loss):
    """Mean absolute error."""

    name = "mae"


class BCE(Loss):
    """Binary cross-entropy of probabilities."""

    name = "bce"


class BCEWithLogits(Loss):
    """Binary cross-entropy of logits."""

    name = "bce_with_logits"


class CrossEntropy(Loss):
    """Cross-entropy of classes, given as integer labels (N,) or rows (N, n) that sum to one.

    from_logits: None asks the network: probabilities where it ends in softmax (the pair is then computed as
    one), else logits. On plain arrays None means logits."""

    name = "cross_entropy"

    def __init__(self, from_logits: bool | None = None) -> None:
        if from_logits is not None and not isinstance(from_logits, bool):
            raise TypeError(f"CrossEntropy: from_logits must be True, False or None, not {from_logits!r}")
        self.from_logits = from_logits

    def kind(self, output: str | None) -> str:
        from_logits = output != "softmax" if self.from_logits is None else self.from_logits
        return "cross_entropy" if from_logits else "cross_entropy_probabilities"

    def config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits}


CLASSES: dict[str, type[Loss]] = {
    cls.name: cls for cls in (MSE, HalfMSE, MAE, BCE, BCEWithLogits, CrossEntropy)
}
NAMES = tuple(CLASSES)
# By the names of their kernels.
KINDS: dict[str, Loss] = {name: cls() for name, cls in CLASSES.items()} | {
    "cross_entropy_probabilities": CrossEntropy(from_logits=False)
}


def resolve(loss: str | Loss) -> Loss:
    """A loss object from a name; ValueError for an unknown one, TypeError for anything else."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name ({', '.join(NAMES)}) or one of gemmule.losses, not {loss!r}")
    if loss not in CLASSES:
        raise unknown_name("loss", loss, NAMES)
    return CLASSES[loss]()


# -- targets -------------------------------------------------------------------------------------------------


def target_array(kind: str, y: ArrayLike, shape: Shape, dtype: str, what: str = "y") -> Array:
    """`y` as the kernels take it for predictions of `shape` (N, ...): int64 (N,) labels, or `dtype` of that
    shape.

    ShapeError where it does not fit, DTypeError for labels that are not integers, ValueError for labels out
    of range or probabilities beyond [0, 1]."""
    array = any_array(y, what)
    if array.ndim == 0 or len(array) != shape[0]:
        raise ShapeError(
            f"{kind}: {what} has shape {array.shape}, the prediction {shape}: one target a sample"
        )
    if kind.startswith("cross_entropy"):
        if shape[-1] < 2:
            raise ShapeError(
                f"cross_entropy: one output of shape {shape} has no classes; use bce_with_logits"
            )
        if array.ndim == 1 and len(shape) == 2:
            return _labels(array, shape[-1], what)
    if array.ndim == 1 and shape[1:] == (1,):
        array = array.reshape(-1, 1)
    if array.shape != shape:
        hint = "" if kind.startswith("cross_entropy") else " (only cross_entropy takes labels)"
        raise ShapeError(
            f"{kind}: {what} has shape {array.shape}, the prediction {shape}{hint if array.ndim == 1 else ''}"
        )
    target = real_array(array, dtype, what)
    if kind in CLASSIFICATION:
        inside = (target >= 0) & (target <= 1)  # NaN is not
        if not inside.all():
            at = tuple(int(i) for i in np.argwhere(~inside)[0])
            raise ValueError(f"{kind}: {what} holds {target[at]:g} at {at}; targets lie in [0, 1]")
    return target


def _labels(array: Array, classes: int, what: str) -> Array:
    if array.dtype.kind not in "biu":
        raise DTypeError(
            f"cross_entropy: {what} has dtype {array.dtype}; labels are integers (see {what}.astype(int)), "
            f"or rows (N, {classes})"
        )
    outside = (array < 0) | (array >= classes)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"cross_entropy: {what} holds label {array[at]} at {at}; {classes} classes have 0..{classes - 1}"
        )
    return np.require(array, np.int64, ("C", "A"))


# -- on arrays -----------------------------------------------------------------------------------------------


def arrays(kind: str, prediction: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """(prediction, target) as the kernels take them; float64 unless the prediction is float32."""
    array = any_array(prediction, "prediction")
    dtype = "float32" if array.dtype.name == "float32" else "float64"
    pred = real_array(array, dtype, "prediction")
    if pred.ndim < 2:
        raise ShapeError(f"{kind}: the prediction has shape {pred.shape}; it must be (N, outputs)")
    if pred.size == 0:
        raise ShapeError(f"{kind}: the prediction of shape {pred.shape} is empty")
    return pred, target_array(kind, target, pred.shape, dtype, "target")


def mse(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Mean squared error (loss, gradient of the prediction); target as the prediction, (N, n)."""
    return MSE()(prediction, target)


def half_mse(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Half the mean squared error (loss, gradient of the prediction); target as the prediction, (N, n)."""
    return HalfMSE()(prediction, target)


def mae(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Mean absolute error (loss, gradient of the prediction, 0 where it is exact); target as the
    prediction."""
    return MAE()(prediction, target)


def bce(probabilities: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Binary cross-entropy (loss, gradient of the probabilities); target (N, n) in [0, 1]."""
    return BCE()(probabilities, target)


def bce_with_logits(z: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Binary cross-entropy of sigmoid(z) (loss, gradient of z); target (N, n) in [0, 1]."""
    return BCEWithLogits()(z, target)


def cross_entropy(z: ArrayLike, target: ArrayLike, from_logits: bool = True) -> tuple[float, Array]:
    """Cross-entropy (loss, gradient of z); target: integer labels (N,) or rows (N, n).

    from_logits=False takes probabilities, the output of a softmax."""
    return CrossEntropy(from_logits)(z, target)
