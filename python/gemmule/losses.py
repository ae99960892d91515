"""Losses: functions on arrays that return (loss, gradient), and objects for `fit`.

With N samples of n outputs, p the prediction and t the target, each loss is a mean over samples:

    mse              1/N sum_i 1/n sum_j (p - t)^2
    half_mse         half of it
    mae              1/N sum_i 1/n sum_j |p - t|
    huber            1/N sum_i 1/n sum_j (p - t)^2 / 2 up to |p - t| = delta, then delta (|p - t| - delta / 2)
    bce              1/N sum_i 1/n sum_j -(t log p + (1 - t) log(1 - p)), p in [0, 1]; logarithms end at -100
    bce_with_logits  the same of p = sigmoid(z), from z
    hinge            1/N sum_i 1/n sum_j max(0, 1 - t z), t = -1 or 1; of labels max(0, 1 + max_(j != label)
                     z_j - z_label)
    cross_entropy    1/N sum_i -log softmax(z)_label, or -sum_j t log softmax(z)_j for one-hot rows
    kl_divergence    1/N sum_i sum_j t (log t - log softmax(z)_j)
    poisson          1/N sum_i 1/n sum_j exp(p) - t p, p the logarithm of the expected count

and `Custom` is a pair of functions of the user's own. docs/math.md has the gradients.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._targets import target_array
from .arrays import Array, any_array, fraction, real_array, real_number, unknown_name
from .errors import DTypeError, ShapeError

# Losses whose outputs decide between classes.
CLASSIFICATION = frozenset({"bce", "bce_with_logits", "cross_entropy", "hinge", "kl_divergence"})


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

    def lower(self, graph: _core.Graph, value: int, output: str | None) -> tuple[str, float]:
        """(kind, parameter) for a program of `graph`, whose output is `value`."""
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


class Huber(Loss):
    """Squared error up to `delta`, a straight line beyond: less weight for outliers. PyTorch's HuberLoss;
    Huber 1964."""

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = _positive(delta, "Huber: delta")

    @property
    def parameter(self) -> float:
        return self.delta

    def config(self) -> dict[str, Any]:
        return {"delta": self.delta}


class Hinge(Loss):
    """What a support vector machine minimises.

    Targets -1 and 1, or 0 and 1 taken as such, shaped like the output: max(0, 1 - t z), scikit-learn's
    hinge_loss. Integer labels (N,) of several outputs: max(0, 1 + the largest other z - z of the label),
    Crammer and Singer 2001, as scikit-learn's of several classes."""

    name = "hinge"


class Poisson(Loss):
    """Negative logarithm of the probability of counts, but for terms without the prediction; PyTorch's
    PoissonNLLLoss.

    log_input: the prediction is the logarithm of the expected count, exp(p) - t p; else it is the count
        itself, p - t log(p + eps), which must not be negative (softplus, say)."""

    name = "poisson"

    def __init__(self, log_input: bool = True, eps: float = 1e-8) -> None:
        if not isinstance(log_input, bool):
            raise TypeError(f"Poisson: log_input must be True or False, not {log_input!r}")
        self.log_input = log_input
        self.eps = _positive(eps, "Poisson: eps")

    def kind(self, output: str | None) -> str:
        return "poisson" if self.log_input else "poisson_rates"

    @property
    def parameter(self) -> float:
        return 0.0 if self.log_input else self.eps

    def config(self) -> dict[str, Any]:
        return {"log_input": self.log_input, "eps": self.eps}


class _Distribution(Loss):
    """Losses of a distribution over the outputs, given by logits or as probabilities."""

    def __init__(self, from_logits: bool | None = None) -> None:
        if from_logits is not None and not isinstance(from_logits, bool):
            raise TypeError(
                f"{type(self).__name__}: from_logits must be True, False or None, not {from_logits!r}"
            )
        self.from_logits = from_logits

    def kind(self, output: str | None) -> str:
        from_logits = output != "softmax" if self.from_logits is None else self.from_logits
        return self.name if from_logits else f"{self.name}_probabilities"

    def config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits}


class CrossEntropy(_Distribution):
    """Cross-entropy of classes, given as integer labels (N,) or rows (N, n) that sum to one.

    from_logits: None asks the network: probabilities where it ends in softmax (the pair is then computed as
    one), else logits. On plain arrays None means logits.
    label_smoothing: so much of every target goes to all classes alike, t (1 - s) + s / n, as PyTorch's
    (Szegedy et al. 2016)."""

    name = "cross_entropy"

    def __init__(self, from_logits: bool | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(from_logits)
        self.label_smoothing = fraction(label_smoothing, "CrossEntropy: label_smoothing")

    @property
    def parameter(self) -> float:
        return self.label_smoothing

    def config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class KLDivergence(_Distribution):
    """Kullback and Leibler's divergence of the targets, rows (N, n) that sum to one, from the predicted
    distribution: cross-entropy less the entropy of the targets, so 0 where they agree; 0 log 0 = 0.

    from_logits: as for `CrossEntropy`. Logarithms of probabilities may be given for logits, being a kind of
    them: the value is then that of PyTorch's KLDivLoss(reduction="batchmean"), the gradient that through a
    log_softmax."""

    name = "kl_divergence"


class Custom(Loss):
    """A loss of the user's own, in Python: functions of (prediction, target).

        log_cosh = gm.losses.Custom(
            lambda p, t: np.log(np.cosh(p - t)).mean(axis=1),          # (N, n), (N, n) -> (N,)
            lambda p, t: np.tanh(p - t) / p.shape[1],                  # -> (N, n)
        )

    value: the loss of each sample (N,). gradient: its derivative in the prediction, shaped like that; the
    mean over samples is taken, and weights are counted, by gemmule. The prediction is of the network's type,
    the target like it, or int64 labels (N,) where integers were given for several outputs. Both get arrays of
    their own. In `fit` every batch enters Python for it. `save` takes functions with a name of their own."""

    name = "custom"

    def __init__(self, value: Callable[..., Any], gradient: Callable[..., Any]) -> None:
        for what, f in (("value", value), ("gradient", gradient)):
            if not callable(f):
                raise TypeError(f"Custom: {what} must be a function of (prediction, target), not {f!r}")
        self.value, self.gradient = value, gradient

    def lower(self, graph: _core.Graph, value: int, output: str | None) -> tuple[str, float]:
        graph.custom_loss(value, self.value, self.gradient)
        return super().lower(graph, value, output)

    def config(self) -> dict[str, Any]:
        return {"value": self.value, "gradient": self.gradient}

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
        pred, y = arrays("custom", prediction, target)
        losses = _returned(self.value(pred.copy(), y.copy()), (len(pred),), "value")
        grad = _returned(self.gradient(pred.copy(), y.copy()), pred.shape, "gradient")
        return float(losses.astype(np.float64).mean()), (grad / len(pred)).astype(pred.dtype)

    def __repr__(self) -> str:
        names = (getattr(f, "__name__", repr(f)) for f in (self.value, self.gradient))
        return "Custom({})".format(", ".join(names))


def _returned(result: Any, shape: tuple[int, ...], what: str) -> Array:
    array = np.asarray(result)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"custom loss: {what} returned {array.dtype}, not real numbers")
    if array.shape != shape:
        raise ShapeError(f"custom loss: {what} returned shape {array.shape}, not {shape}")
    return array


def _positive(value: Any, what: str) -> float:
    number = real_number(value, what)
    if not 0 < number < float("inf"):
        raise ValueError(f"{what} is {value}; it must be positive and finite")
    return number


CLASSES: dict[str, type[Loss]] = {
    cls.name: cls
    for cls in (MSE, HalfMSE, MAE, Huber, BCE, BCEWithLogits, Hinge, CrossEntropy, KLDivergence, Poisson)
}
NAMES = tuple(CLASSES)
# By the names of their kernels.
KINDS: dict[str, Loss] = {name: cls() for name, cls in CLASSES.items()} | {
    "cross_entropy_probabilities": CrossEntropy(from_logits=False),
    "kl_divergence_probabilities": KLDivergence(from_logits=False),
    "poisson_rates": Poisson(log_input=False),
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


def huber(prediction: ArrayLike, target: ArrayLike, delta: float = 1.0) -> tuple[float, Array]:
    """Huber's loss (loss, gradient of the prediction), squared up to an error of delta; target as the
    prediction."""
    return Huber(delta)(prediction, target)


def bce(probabilities: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Binary cross-entropy (loss, gradient of the probabilities); target (N, n) in [0, 1]."""
    return BCE()(probabilities, target)


def bce_with_logits(z: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Binary cross-entropy of sigmoid(z) (loss, gradient of z); target (N, n) in [0, 1]."""
    return BCEWithLogits()(z, target)


def hinge(z: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Hinge loss (loss, gradient of z); target: -1 and 1, or 0 and 1, (N, n), or integer labels (N,) of
    several outputs, see `Hinge`."""
    return Hinge()(z, target)


def cross_entropy(
    z: ArrayLike, target: ArrayLike, from_logits: bool = True, label_smoothing: float = 0.0
) -> tuple[float, Array]:
    """Cross-entropy (loss, gradient of z); target: integer labels (N,) or rows (N, n).

    from_logits=False takes probabilities, the output of a softmax. label_smoothing: see `CrossEntropy`."""
    return CrossEntropy(from_logits, label_smoothing)(z, target)


def kl_divergence(z: ArrayLike, target: ArrayLike, from_logits: bool = True) -> tuple[float, Array]:
    """Divergence of the rows `target` (N, n) from softmax(z) (loss, gradient of z).

    from_logits=False takes probabilities, the output of a softmax; see `KLDivergence`."""
    return KLDivergence(from_logits)(z, target)


def poisson(
    prediction: ArrayLike, target: ArrayLike, log_input: bool = True, eps: float = 1e-8
) -> tuple[float, Array]:
    """Poisson loss (loss, gradient of the prediction) of counts (N, n); see `Poisson`."""
    return Poisson(log_input, eps)(prediction, target)
