"""Where weights start.

With fan_in inputs and fan_out outputs, drawn in float64 in layer order from the network's Philox key:

    he          normal, std sqrt(2 / fan_in)                       He et al. 2015
    xavier      uniform on +-sqrt(6 / (fan_in + fan_out))          Glorot and Bengio 2010
    lecun       normal, std sqrt(1 / fan_in)                       LeCun et al. 1998
    orthogonal  Q of a normal matrix's QR, signs made unique       Saxe et al. 2014
    normal      normal, std 0.01
    zeros
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, Shape, any_array, unknown_name
from .errors import ShapeError

if TYPE_CHECKING:
    from numpy.random import Generator

NAMES = ("he", "xavier", "lecun", "orthogonal", "normal", "zeros")

Initializer = str | Array


def resolve(init: "str | ArrayLike") -> Initializer:
    """A known name, or an array of real numbers; ValueError otherwise."""
    if isinstance(init, str):
        if init not in NAMES:
            raise unknown_name("init", init, NAMES)
        return init
    return any_array(init, "init")


def draw(init: Initializer, shape: Shape, rng: "Generator", what: str) -> Array:
    """Initial values (*shape,) in float64. A matrix is (fan_out, fan_in), filters (n_out, k_h, k_w, n_in /
    groups) have fan_in = k_h k_w n_in / groups and fan_out = k_h k_w n_out, PyTorch's rule; a vector has both
    fans its length.

    ShapeError where an array given has another shape, ValueError for an orthogonal vector."""
    if not isinstance(init, str):
        if init.shape != shape:
            raise ShapeError(f"{what} has shape {shape}; the init array has {init.shape}")
        return init
    fan_in = fan_out = math.prod(shape)
    if len(shape) > 1:
        fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[1:-1])
    match init:
        case "he":
            return rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        case "xavier":
            limit = math.sqrt(6 / (fan_in + fan_out))
            return rng.uniform(-limit, limit, shape)
        case "lecun":
            return rng.normal(0.0, math.sqrt(1 / fan_in), shape)
        case "orthogonal":
            return _orthogonal(shape, rng, what)
        case "normal":
            return rng.normal(0.0, 0.01, shape)
        case "zeros":
            return np.zeros(shape)
    raise unknown_name("init", init, NAMES)


def _orthogonal(shape: Shape, rng: "Generator", what: str) -> Array:
    """Orthonormal rows or columns, whichever are fewer."""
    if len(shape) < 2:
        raise ValueError(f"{what}: an orthogonal init takes a matrix, not shape {shape}")
    rows, cols = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.normal(size=(max(rows, cols), min(rows, cols))))
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # else Q is not uniform over the orthogonal group
    return (q if rows >= cols else q.T).reshape(shape)
