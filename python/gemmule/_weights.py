"""What each sample counts: `sample_weight` and `class_weight`."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, any_array, not_negative
from .errors import ShapeError

Weight = NDArray[np.float64]
ClassWeight = Mapping[Any, float] | str

_BINARY = {"bce": (0, 1), "bce_with_logits": (0, 1), "hinge": (-1, 1)}  # the two targets of one output
_OF_CLASSES = ("cross_entropy", "cross_entropy_probabilities", "kl_divergence", "custom")


class Weights(NamedTuple):
    """Of the samples of a data set (N,)."""

    loss: Weight
    metrics: Weight | None  # None: all alike

    def part(self, rows: Array | slice) -> "Weights":
        loss = self.loss[rows]
        if self.metrics is self.loss or self.metrics is None:
            return Weights(loss, loss if self.metrics is not None else None)
        return Weights(loss, self.metrics[rows])

    def described(self) -> str:
        """Whose weights they are, for a checkpoint."""
        if self.metrics is None:
            return "of classes"
        return "of samples" if self.metrics is self.loss else "of samples and classes"


def of_samples(sample_weight: ArrayLike | None, rows: int, what: str) -> Weights | None:
    """Checked weights of `rows` samples; ShapeError and ValueError where they do not fit."""
    if sample_weight is None:
        return None
    array = any_array(sample_weight, what)
    if array.shape != (rows,):
        raise ShapeError(f"{what} has shape {array.shape}; {rows} samples take {(rows,)}")
    weight = np.ascontiguousarray(array, np.float64)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"{what} holds {weight[at]:g} at {at}; weights are finite and not negative")
    require_some(weight, what)
    return Weights(weight, weight)


def require_some(weight: Weight, what: str) -> None:
    """ValueError where nothing has a weight, or the sum is beyond float64."""
    with np.errstate(over="ignore"):
        total = float(weight.sum())
    if not 0 < total < math.inf:
        raise ValueError(f"{what} sums to {total:g}; it must be positive and finite")


def of_order(weights: Weights | None, order: Array | None) -> None:
    """ValueError for an epoch whose samples weigh nothing."""
    if weights is None or order is None:
        return
    for epoch, rows in enumerate(order):
        if not weights.loss[rows].any():
            raise ValueError(f"fit: the samples that shuffle has for epoch {epoch + 1} all have weight 0")


def given(weights: Weights | None) -> dict[str, Weight | None]:
    """As the compiled loops take them."""
    return {} if weights is None else {"weights": weights.loss, "metric_weights": weights.metrics}


class OfClasses:
    """The weights of classes, learned from the targets that are trained on.

    kind: the loss's. names: of the classes, where a table has them."""

    def __init__(
        self,
        class_weight: ClassWeight,
        target: Array,
        weights: Weights | None,
        kind: str,
        outputs: int,
        names: Sequence[Hashable] | None,
    ) -> None:
        self._kind = kind
        self._known: Sequence[Hashable] = _known(kind, outputs, target)
        place = self._places(target, "y")
        self._weights = np.ones(len(self._known))
        if isinstance(class_weight, str):
            if class_weight != "balanced":
                raise ValueError(f"fit: class_weight is {class_weight!r}; it must be a dict or 'balanced'")
            counts = np.bincount(place, None if weights is None else weights.loss, len(self._known))
            there = counts > 0
            self._weights[there] = counts.sum() / (there.sum() * counts[there])
        elif isinstance(class_weight, Mapping):
            for name, weight in class_weight.items():
                self._weights[self._place(name, names)] = not_negative(
                    weight, f"fit: class_weight of {name!r}"
                )
        else:
            raise TypeError(f"fit: class_weight must be a dict or 'balanced', not {class_weight!r}")

    def times(self, weights: Weights | None, target: Array, which: str) -> Weights:
        """The weights of samples, times those of their classes in the loss."""
        by_class = self._weights[self._places(target, f"{which}y")]
        if weights is not None:
            by_class = by_class * weights.loss
        require_some(by_class, f"{which}y: the weights of its samples and classes")
        return Weights(by_class, None if weights is None else weights.metrics)

    def _place(self, name: Hashable, names: Sequence[Hashable] | None) -> int:
        known = self._known if names is None else names
        if self._kind == "hinge" and name == 0 and len(known) == 2:
            name = known[0]  # targets 0 and 1 are taken as -1 and 1
        if isinstance(name, bool) or name not in known:
            raise ValueError(f"fit: class_weight names class {name!r}; the classes are {_listed(known)}")
        return known.index(name)

    def _places(self, target: Array, what: str) -> NDArray[np.int64]:
        """Where each sample's class stands among the known ones."""
        if target.ndim == 1:
            return target
        rows = target.reshape(len(target), -1)
        if rows.shape[1] == 1:
            first, second = self._known
            place = (rows[:, 0] == second).astype(np.int64)
            pure = (rows[:, 0] == first) | (place == 1)
        else:
            place = rows.argmax(axis=1)
            pure = (rows.max(axis=1) == 1) & (np.count_nonzero(rows, axis=1) == 1)
        if not pure.all():
            raise ValueError(
                f"fit: class_weight: {what}[{int(np.argmin(pure))}] is not of one class; weigh samples by "
                "sample_weight"
            )
        return np.asarray(place, np.int64)


def _known(kind: str, outputs: int, target: Array) -> tuple[int, ...]:
    """The classes that targets of this loss name."""
    if outputs == 1 and kind in _BINARY:
        return _BINARY[kind]
    if outputs > 1 and (target.ndim == 1 or kind in _OF_CLASSES):
        return tuple(range(outputs))
    raise ValueError(
        f"fit: class_weight weighs classes, and {kind} of {outputs} output{'s' * (outputs > 1)} has no class "
        "a sample; weigh samples by sample_weight"
    )


def _listed(known: Sequence[Hashable]) -> str:
    if len(known) > 5 and known == tuple(range(len(known))):
        return f"0..{len(known) - 1}"
    return ", ".join(map(repr, known))
