"""Metrics of regression."""

import math

import numpy as np

from ..arrays import Array
from .base import Metric, mean


class Regression(Metric):
    """Metrics of differences; of several outputs the mean."""

    def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
        if labels:
            raise ValueError(
                f"metric {self.name!r} compares outputs with targets of their shape, not with labels"
            )


class MSE(Regression):
    """The mean squared error."""

    @property
    def compiled(self) -> str | None:
        return "mse"

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        return mean(((output - target) ** 2).mean(axis=1), weight)


class MAE(Regression):
    """The mean absolute error."""

    @property
    def compiled(self) -> str | None:
        return "mae"

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        return mean(np.abs(output - target).mean(axis=1), weight)


class R2(Regression):
    """1 - sum (t - p)^2 / sum (t - mean t)^2, the coefficient of determination.

    Where all targets of an output are equal, 1 if they are met and else 0. NaN for one sample."""

    def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
        if len(target) < 2:
            return math.nan
        centre = weight @ target / weight.sum()
        left, spread = weight @ (target - output) ** 2, weight @ (target - centre) ** 2
        return float(np.where(spread > 0, 1 - left / spread, np.where(left > 0, 0.0, 1.0)).mean())
