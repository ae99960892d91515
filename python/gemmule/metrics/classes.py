"""Metrics of classes: decisions that are right, and how well outputs rank."""

import math

import numpy as np

from ..arrays import Array, real_number, unknown_name
from ..layers.base import positive_int
from .base import Metric, mean, ratio

AVERAGES = ("binary", "macro", "micro", "weighted")

_THRESHOLDS = {"bce": 0.5, "bce_with_logits": 0.0, "hinge": 0.0}  # of raw outputs


class Decided(Metric):
    """Metrics of decisions: the largest output, or outputs above the threshold one by one."""

    def __init__(self, threshold: float | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = None if threshold is None else real_number(threshold, f"{self.name}: threshold")

    def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
        if not _one_by_one(loss_kind, outputs, labels):
            if self.threshold is not None:
                raise ValueError(
                    f"{self.name}: the largest of {outputs} outputs decides; a threshold is for one"
                )
        elif self.threshold is None and loss_kind not in _THRESHOLDS:
            raise ValueError(
                f"{self.name}: {loss_kind} has no threshold for its output; give one, as in "
                f"gm.metrics.{type(self).__name__}(threshold=0.5)"
            )

    def decisions(self, target: Array, output: Array, loss_kind: str) -> tuple[Array, Array]:
        """(true, decided): classes (N,), which for one output are 0 and 1, or booleans (N, n)."""
        if not _one_by_one(loss_kind, output.shape[1], target.ndim == 1):
            return _classes(target), output.argmax(axis=1)
        threshold = _THRESHOLDS[loss_kind] if self.threshold is None else self.threshold
        true, decided = _positive(target, loss_kind), output > threshold
        return (
            (true[:, 0].astype(int), decided[:, 0].astype(int)) if output.shape[1] == 1 else (true, decided)
        )


class Accuracy(Decided):
    """The share of right decisions: of samples, or of outputs where they are decided one by one (scikit-learn
    counts a sample then where all its outputs are right).

    threshold: of the raw output, see `gemmule.metrics`."""

    @property
    def compiled(self) -> str | None:
        return "accuracy" if self.threshold is None else None

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        true, decided = self.decisions(target, output, loss_kind)
        right = (true == decided).reshape(len(output), -1).mean(axis=1)
        return mean(right, weight)


class TopK(Metric):
    """The share of samples whose class is among the k largest outputs; of equal ones the first is the larger,
    as for accuracy (scikit-learn's: the last)."""

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        self.k = positive_int(k, "TopK: k")
        super().__init__(f"top_{self.k}" if name is None else name)

    def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
        if _one_by_one(loss_kind, outputs, labels):
            raise ValueError(f"{self.name}: {loss_kind} decides its outputs one by one, not among classes")
        if outputs < self.k:
            raise ValueError(f"{self.name}: there are {outputs} outputs")

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        label = _classes(target)[:, None]
        own = np.take_along_axis(output, label, axis=1)
        before = (output > own) | ((output == own) & (np.arange(output.shape[1]) < label))
        return mean(before.sum(axis=1) < self.k, weight)


class Counted(Decided):
    """Metrics of counts by class: hits, decisions for the class, samples of the class.

    average: "binary" is the figure of the positive class, or of class 1 of two; "macro" the mean over the
        classes that occur among targets or decisions, "weighted" the same by their samples, "micro" the
        figure of the sums over classes. None is binary for one output, else macro.
    threshold: of the raw output, see `gemmule.metrics`.

    0 / 0 counts as 0."""

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str | None = None
    ) -> None:
        if average is not None and average not in AVERAGES:
            raise unknown_name(f"average of {type(self).__name__}", average, AVERAGES)
        suffix = "" if average is None else f"_{average}"
        super().__init__(threshold, f"{type(self).__name__.lower()}{suffix}" if name is None else name)
        self.average = average

    def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
        super().check(loss_kind, outputs, labels)
        two = outputs == 1 or (outputs == 2 and not _one_by_one(loss_kind, outputs, labels))
        if self.average == "binary" and not two:
            raise ValueError(f"{self.name}: 'binary' is for one output or two classes; there are {outputs}")

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        true, decided = self.decisions(target, output, loss_kind)
        hit, said, actual, occurs = _counts(true, decided, weight, max(output.shape[1], 2))
        average = self.average or ("binary" if output.shape[1] == 1 else "macro")
        if average == "micro":
            return float(self.figure(hit.sum(), said.sum(), actual.sum()))
        figures = self.figure(hit, said, actual)
        if average == "binary":
            return float(figures[1])
        if average == "macro":
            return float(figures[occurs].mean())
        return float(ratio(figures @ actual, actual.sum()))

    def figure(self, hit: Array, said: Array, actual: Array) -> Array:
        """Of each class, from the weights of its hits, of the decisions for it and of its samples."""
        raise NotImplementedError


class Precision(Counted):
    """Hits / decisions for the class; see `Counted` for average and threshold."""

    def figure(self, hit: Array, said: Array, actual: Array) -> Array:
        return ratio(hit, said)


class Recall(Counted):
    """Hits / samples of the class; see `Counted` for average and threshold."""

    def figure(self, hit: Array, said: Array, actual: Array) -> Array:
        return ratio(hit, actual)


class F1(Counted):
    """2 hits / (decisions + samples), the harmonic mean of precision and recall; see `Counted` for average
    and threshold."""

    def figure(self, hit: Array, said: Array, actual: Array) -> Array:
        return ratio(2 * hit, said + actual)


class AUC(Metric):
    """The area under the ROC curve: the chance that a positive sample's output is above a negative one's,
    equal ones counting half.

    Of several classes the mean over each against the rest, by probabilities: the softmax of logits. NaN
    where a class has no samples, or all."""

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        outputs = output.shape[1]
        if _one_by_one(loss_kind, outputs, target.ndim == 1):
            positive = _positive(target, loss_kind)
        else:
            positive = _classes(target)[:, None] == np.arange(outputs)
            if loss_kind in ("cross_entropy", "kl_divergence"):
                output = np.exp(output - output.max(axis=1, keepdims=True))
                output /= output.sum(axis=1, keepdims=True)
        return float(np.mean([_area(positive[:, j], output[:, j], weight) for j in range(outputs)]))


def _area(positive: Array, score: Array, weight: Array) -> float:
    """Positive weight times the negative weight below it, half of the equal ones, over the product of
    both."""
    _, level = np.unique(score, return_inverse=True)
    above = np.bincount(level, weight * positive)
    below = np.bincount(level, weight * ~positive)
    under = np.cumsum(below) - below / 2
    return float(ratio(above @ under, above.sum() * below.sum(), math.nan))


def _counts(true: Array, decided: Array, weight: Array, classes: int) -> tuple[Array, Array, Array, Array]:
    """By class: the weights of hits, of decisions for it and of its samples; whether it occurs at all."""
    if true.ndim == 2:
        sums = [weight @ which for which in (true & decided, decided, true)]
        return sums[0], sums[1], sums[2], np.ones(true.shape[1], dtype=bool)
    right = true == decided
    hit = np.bincount(true[right], weight[right], classes)
    said, actual = (np.bincount(which, weight, classes) for which in (decided, true))
    occurs = np.bincount(true, minlength=classes) + np.bincount(decided, minlength=classes) > 0
    return hit, said, actual, occurs


def _one_by_one(loss_kind: str, outputs: int, labels: bool) -> bool:
    return not labels and (outputs == 1 or loss_kind in _THRESHOLDS)


def _positive(target: Array, loss_kind: str) -> Array:
    return target > (0.0 if loss_kind == "hinge" else 0.5)


def _classes(target: Array) -> Array:
    return target if target.ndim == 1 else target.argmax(axis=1)
