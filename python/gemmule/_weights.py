"""What each sample counts: `sample_weight` and `class_weight`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Weight = NDArray[np.float64]


class Weights(NamedTuple):
    """Of the samples of a data set (N,)."""

    loss: Weight
    metrics: Weight | None  # None: all alike


def given(weights: Weights | None) -> dict[str, Weight | None]:
    """As the compiled loops take them."""
    return {} if weights is None else {"weights": weights.loss, "metric_weights": weights.metrics}
