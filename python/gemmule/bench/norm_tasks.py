"""A normalization in training, forward or backward: its data, FLOPs and check. Workers import this; it needs
NumPy alone."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .layer_tasks import on_lines

Array = NDArray[Any]

EPS = 1e-5  # what is added to the variance
_ROUNDING = float(np.finfo(np.float32).eps)
# Of errors that do not know of each other, see layer_tasks.py.
_LAMBDA = 8.0


@dataclass(frozen=True)
class Norm:
    """Y = weight (X - mean) / sqrt(variance + eps) + bias; or dX, dweight and dbias of it, from dY and what
    forward kept. `batch`: over the samples and pixels of (batch, size, size, channels), for each channel;
    `layer`: over the channels of (batch, channels), for each row, with size = 1."""

    kind: ClassVar[str] = "norm"

    mode: str  # batch or layer
    batch: int
    size: int
    channels: int
    backward: bool
    threads: int
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of X."""
        images = (self.batch, self.size, self.size, self.channels)
        return images if self.mode == "batch" else (self.batch, self.channels)

    @property
    def flops(self) -> int:
        """Six an element forward (two sums, a difference, a square, a product, a sum), ten backward."""
        return (10 if self.backward else 6) * int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Of X and Y, or of X, dY and dX."""
        return 4 * (3 if self.backward else 2) * int(np.prod(self.shape))

    def operands(self) -> tuple[Array, Array, Array, Array]:
        """X, of mean 1 and deviation 2, weight, bias and dY."""
        rng = np.random.default_rng(self.bytes)
        x, dy = (on_lines(rng.standard_normal(self.shape, np.float32)) for _ in range(2))
        weight, bias = (rng.standard_normal(self.channels, np.float32) for _ in range(2))
        x[...] = 2 * x + 1
        return x, weight, bias, dy

    def check_forward(self, x: Array, weight: Array, bias: Array, y: Array) -> None:
        """Raise ArithmeticError unless Y agrees with float64 within some roundings of its terms."""
        normal, _ = self._normal(x)
        self._compare("Y", y, normal * weight + bias, np.abs(normal * weight) + np.abs(bias) + 1)

    def check_backward(
        self, x: Array, weight: Array, dy: Array, dx: Array, dweight: Array, dbias: Array
    ) -> None:
        """The same of the gradients, whose sums walk at random."""
        normal, inverse = self._normal(x)
        grad = dy.astype(np.float64) * weight
        mean, slant = (self._mean(array) for array in (grad, grad * normal))
        exact = inverse * (grad - mean - normal * slant)
        self._compare("dX", dx, exact, inverse * (np.abs(grad) + 1 + np.abs(normal)))
        axes = tuple(range(dy.ndim - 1))
        walk = np.sqrt(dy.size / self.channels)
        self._compare("dweight", dweight, (dy * normal).sum(axes), walk * np.abs(dy * normal).max(axes))
        self._compare("dbias", dbias, dy.sum(axes, dtype=np.float64), walk * np.abs(dy).max(axes))

    def _mean(self, array: Array) -> Array:
        axes = tuple(range(array.ndim - 1)) if self.mode == "batch" else -1
        mean: Array = array.mean(axes, keepdims=True, dtype=np.float64)
        return mean

    def _normal(self, x: Array) -> tuple[Array, Array]:
        """((X - mean) / sqrt(variance + eps), 1 / sqrt(variance + eps)), float64."""
        centred = x - self._mean(x)
        inverse = 1 / np.sqrt(self._mean(centred**2) + EPS)
        return centred * inverse, inverse

    def _compare(self, name: str, found: Array, exact: Array, magnitude: Array) -> None:
        if found.shape != exact.shape or not np.all(np.abs(found - exact) <= _LAMBDA * _ROUNDING * magnitude):
            raise ArithmeticError(f"wrong {name} of {self}")
