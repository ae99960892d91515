"""What all metrics share, and metrics from the user's own functions."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import Array, any_array
from ..errors import DTypeError, ShapeError


class Metric:
    """A figure of a data set.

    A subclass of your own defines `value`, and may define `check`; where neither the loss nor weights
    matter, a function does. name: what histories call it."""

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: name must be a string, not {name!r}")
        self.name = type(self).__name__.lower() if name is None else name

    @property
    def compiled(self) -> str | None:
        """What the compiled loop calls it, which then sums it while it trains; None where it has no such."""
        return None

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, loss_kind: str, sample_weight: ArrayLike | None = None
    ) -> float:
        """The figure of targets, integer labels (N,) or rows (N, n), and raw outputs (N, n).

        loss_kind: the name of the loss, by which outputs are read. sample_weight: (N,), what each sample
            counts.
        ShapeError where they do not fit together, ValueError where this metric has no meaning for them."""
        output = any_array(y_pred, "y_pred")
        if output.ndim < 2 or output.size == 0:
            raise ShapeError(f"{self.name}: y_pred has shape {output.shape}; it must be (N, outputs)")
        output = output.reshape(len(output), -1).astype(np.float64)
        target = self._target(any_array(y_true, "y_true"), output)
        weight = self._weight(sample_weight, len(output))
        self.check(loss_kind, output.shape[1], target.ndim == 1)
        if np.isnan(output).any():
            return math.nan
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return float(self.value(target, output, loss_kind, weight))

    def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
        """ValueError where the metric has no meaning for so many outputs, with labels or rows as targets."""

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        """The figure of checked arrays: int64 labels (N,) or float64 rows (N, n), outputs (N, n), weights
        (N,)."""
        raise NotImplementedError(
            f"{type(self).__name__} must define value(target, output, loss_kind, weight)"
        )

    def _target(self, target: Array, output: Array) -> Array:
        rows, outputs = output.shape
        if target.shape != (rows,) or outputs == 1:
            if target.size != output.size or len(target) != rows:
                raise ShapeError(
                    f"{self.name}: y_true has shape {target.shape}, y_pred {output.shape}; targets have that "
                    f"shape, or for several outputs are labels {(rows,)}"
                )
            return target.reshape(output.shape).astype(np.float64)
        if target.dtype.kind not in "biu":
            raise DTypeError(f"{self.name}: y_true has dtype {target.dtype}; labels are integers")
        outside = (target < 0) | (target >= outputs)
        if outside.any():
            raise ValueError(
                f"{self.name}: label {target[outside][0]}; {outputs} classes have 0..{outputs - 1}"
            )
        return target.astype(np.int64)

    def _weight(self, sample_weight: ArrayLike | None, rows: int) -> Array:
        if sample_weight is None:
            return np.ones(rows)
        weight = any_array(sample_weight, "sample_weight").astype(np.float64)
        if weight.shape != (rows,):
            raise ShapeError(
                f"{self.name}: sample_weight has shape {weight.shape}; {rows} samples take {(rows,)}"
            )
        return weight

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key.lstrip('_')}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class Function(Metric):
    """f(y_true, y_pred) of the targets as the kernels take them, int64 labels (N,) or rows (N, n), and the
    raw outputs (N, n). One that has an argument `sample_weight` is given that too; others do not know of
    weights.

    name: by default that of the function."""

    def __init__(self, f: Callable[..., Any], name: str | None = None) -> None:
        super().__init__(getattr(f, "__name__", type(f).__name__) if name is None else name)
        self.f = f
        try:
            self._weighted = "sample_weight" in inspect.signature(f).parameters
        except ValueError:  # some built-in functions do not tell
            self._weighted = False

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, loss_kind: str, sample_weight: ArrayLike | None = None
    ) -> float:
        weight = {"sample_weight": sample_weight} if self._weighted else {}
        result = np.asarray(self.f(y_true, y_pred, **weight))
        if result.size != 1 or result.dtype.kind not in "biuf":
            raise TypeError(f"metric {self.name!r} must return a number, not {result!r}")
        return float(result.reshape(()))


def mean(values: Array, weight: Array) -> float:
    return float(weight @ values / weight.sum())


def ratio(a: Array, b: Array, undefined: float = 0.0) -> Array:
    """a / b, and `undefined` where b is 0."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), undefined)
