"""What is measured beside the loss: `fit(..., metrics=["accuracy", "top_5", "f1_micro", function])`.

A metric compares the targets of an epoch with the network's raw outputs, in float64. Figures are
scikit-learn's, with weights too. By name:

    accuracy                share of samples whose class is right
    top_1, top_2, ...       share whose class is among the k largest outputs; top_k is top_5
    precision, recall, f1   of the positive class, or the mean over several; also f1_micro, f1_weighted ...
    auc                     area under the ROC curve
    mse, mae, r2            errors of regression

Integer labels, and rows of several targets, are classes, and the largest output decides. One output, and
each of several under bce, bce_with_logits and hinge, is decided by itself: positive above a threshold, which
is 0.5 for bce, 0 for the other two, and to be given for any other loss. Targets are positive above 0.5, for
hinge above 0.

NaN among the outputs gives NaN.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import Array, unknown_name
from .base import Function, Metric
from .classes import AUC, AVERAGES, F1, Accuracy, Counted, Decided, Precision, Recall, TopK
from .regression import MAE, MSE, R2, Regression

__all__ = [
    "AUC",
    "AVERAGES",
    "F1",
    "MAE",
    "MSE",
    "NAMES",
    "R2",
    "Accuracy",
    "Counted",
    "Decided",
    "Function",
    "Metric",
    "MetricLike",
    "Precision",
    "Recall",
    "Regression",
    "TopK",
    "measure",
    "resolve",
]

NAMES = ("accuracy", "top_k", "precision", "recall", "f1", "auc", "mse", "mae", "r2")

MetricLike = str | Metric | Callable[..., Any]

_CLASSES: dict[str, type[Metric]] = {cls.__name__.lower(): cls for cls in (Accuracy, AUC, MSE, MAE, R2)}
_COUNTED: dict[str, type[Counted]] = {cls.__name__.lower(): cls for cls in (Precision, Recall, F1)}


def resolve(metrics: Sequence[MetricLike] | str) -> tuple[Metric, ...]:
    """Metric objects from names, objects and functions, each once.

    ValueError for an unknown name and for two metrics of one name, TypeError for anything else."""
    if not isinstance(metrics, Sequence):
        raise TypeError(f"metrics must be a list of names ({', '.join(NAMES)}), not {metrics!r}")
    found: dict[str, Metric] = {}
    for given in (metrics,) if isinstance(metrics, str) else metrics:
        metric = _resolved(given)
        if metric.name == "loss" or metric.name.startswith("val_"):
            raise ValueError(
                f"metric {metric.name!r}: histories keep that name for something else; give another"
            )
        if found.setdefault(metric.name, metric) != metric:
            raise ValueError(f"two metrics are called {metric.name!r}; give one of them another name=")
    return tuple(found.values())


def _resolved(metric: MetricLike) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        stem, _, average = metric.partition("_")
        if metric in _CLASSES:
            return _CLASSES[metric]()
        if metric == "top_k":
            return TopK()
        if re.fullmatch(r"top_[1-9]\d{0,8}", metric):
            return TopK(int(average))
        if metric in _COUNTED or (stem in _COUNTED and average in AVERAGES):
            return _COUNTED[stem](average or None)
        raise unknown_name("metric", metric, NAMES)
    if callable(metric) and not isinstance(metric, type):
        return Function(metric)
    raise TypeError(f"a metric must be a name ({', '.join(NAMES)}), a Metric or a function, not {metric!r}")


def measure(
    metric: Metric, y_true: Array, y_pred: Array, loss_kind: str, sample_weight: Array | None = None
) -> float:
    """The metric of a whole epoch. What it raises is passed on with a note that names it."""
    try:
        return metric(y_true, y_pred, loss_kind, sample_weight)
    except Exception as error:
        error.add_note(f"in the metric {metric.name!r}, of targets {y_true.shape} and outputs {y_pred.shape}")
        raise
