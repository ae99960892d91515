"""What normalizations compute, in float64 by the formulas of docs/math.md, and bounds of rounding errors.

Nothing here imports gemmule.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Axes = tuple[int, ...]
Statistics = tuple[Array, Array]


class Result(NamedTuple):
    """A value and the bound of its rounding errors."""

    value: Array
    error: Array


def statistics(x: Array, axes: Axes) -> Statistics:
    """mean and variance over `axes`, which stay as axes of length 1; divided by the number of elements.

    From differences to the first element, which are exact where the mean is large: what the reference is off
    by itself is half a unit of the mean."""
    x = x.astype(np.float64)
    start = x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    apart = x - start
    middle = apart.mean(axis=axes, keepdims=True)
    return start + middle, ((apart - middle) ** 2).mean(axis=axes, keepdims=True)


# A sum in chains of at most 384 terms, whose errors have both signs, is off by some sqrt(384) = 20 unit
# roundoffs of the sum of the terms' sizes; 64 are never met.
CHAIN = 64


def _standardized(x: Array, mean: Array, var: Array, eps: float) -> Result:
    """x^ = (x - mean) / sqrt(var + eps), and its bound: mean and variance come from deviations, so that their
    errors are in units of sqrt(var + eps), whatever the mean; but the mean is rounded to x's type, and those
    of blocks, which it is made of and whose distances are part of the variance, to float64."""
    u, u64 = (float(np.finfo(dtype).eps) for dtype in (x.dtype, np.float64))
    deviation = np.sqrt(var + eps)
    value = (x.astype(np.float64) - mean) / deviation
    error = CHAIN * u * (1 + abs(value)) + (2 * u + u64 * abs(value)) * abs(mean) / deviation
    return Result(value, error)


def normalize(
    x: Array,
    axes: Axes,
    weight: Array | float = 1.0,
    bias: Array | float = 0.0,
    eps: float = 1e-5,
    given: Statistics | None = None,
) -> Result:
    """weight x^ + bias with the statistics over `axes`, or those given; weight and bias broadcast."""
    mean, var = given or statistics(x, axes)
    hat = _standardized(x, mean, var, eps)
    u = float(np.finfo(x.dtype).eps)
    weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    error = abs(weight) * hat.error + 4 * u * (abs(weight * hat.value) + abs(bias))
    return Result(weight * hat.value + bias, error)


class Gradients(NamedTuple):
    """products = dy x^, which summed over what weight is broadcast along gives its gradient."""

    dx: Result
    products: Result


def normalize_backward(
    dy: Array,
    x: Array,
    axes: Axes,
    weight: Array | float = 1.0,
    eps: float = 1e-5,
    given: Statistics | None = None,
) -> Gradients:
    """dx = (g - mean of g - x^ mean of g x^) / sqrt(var + eps), g = weight dy; given statistics are
    constants, so the means are left out."""
    mean, var = given or statistics(x, axes)
    hat, hat_error = _standardized(x, mean, var, eps)
    u = float(np.finfo(x.dtype).eps)
    dy = dy.astype(np.float64)
    g = np.asarray(weight, np.float64) * dy
    inverse = 1 / np.sqrt(var + eps)
    value, size, error = g, abs(g), np.zeros_like(g)
    if given is None:

        def mean_of(values: Array) -> Array:
            return np.asarray(values.mean(axis=axes, keepdims=True))

        slant, slant_size, slant_error = mean_of(g * hat), mean_of(abs(g * hat)), mean_of(abs(g) * hat_error)
        value = g - mean_of(g) - hat * slant
        size = abs(g) + mean_of(abs(g)) + abs(hat) * slant_size
        error = hat_error * slant_size + abs(hat) * slant_error
    dx = Result(inverse * value, inverse * (error + CHAIN * u * size))
    return Gradients(dx, Result(dy * hat, abs(dy) * hat_error + CHAIN * u * abs(dy * hat)))


def assert_within(actual: Array, wanted: Result, what: str = "") -> None:
    """Every error within its bound."""
    assert actual.shape == wanted.value.shape, what
    excess = abs(actual.astype(np.float64) - wanted.value) - wanted.error
    worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    assert excess[worst] <= 0, (
        f"{what}: {actual[worst]} at {worst} is not {wanted.value[worst]} within {wanted.error[worst]}"
    )


def assert_sums_within(actual: Array, terms: Result, axes: Axes, what: str = "") -> None:
    """The sum of the terms over `axes`, each term within its bound and the sum rounded once."""
    value = terms.value.sum(axis=axes)
    u = float(np.finfo(actual.dtype).eps)
    error = terms.error.sum(axis=axes) + u * abs(terms.value).sum(axis=axes)
    assert_within(actual, Result(value, error), what)
