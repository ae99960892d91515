"""Training and running a convolutional network of the table: data, FLOPs, and the check of outputs. Workers
import this; it needs NumPy alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .networks import (
    EPS,
    NETWORKS,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPooling,
    Mean,
    Network,
    Residual,
    Weights,
)

Array = NDArray[Any]

_LAMBDA = 8.0  # standard deviations of rounding errors that pass
_ROUNDING = float(np.finfo(np.float32).eps / 2) ** 2  # variance of one, of a number of size 1


@dataclass(frozen=True)
class TrainCnn:
    """Epochs of plain gradient descent on the cross-entropy over `samples` images, in batches, shuffled if
    there are several. Who is called again goes on from where it was."""

    kind: ClassVar[str] = "train_cnn"
    loss: ClassVar[str] = "cross_entropy"
    optimizer: ClassVar[str] = "sgd"
    momentum: ClassVar[float] = 0.0

    network: str
    samples: int
    batch: int
    epochs: int
    lr: float
    threads: int
    dtype: str = "float32"

    @property
    def net(self) -> Network:
        """Of the table."""
        return NETWORKS[self.network]

    @property
    def shuffle(self) -> bool:
        """Whether there is more than one batch."""
        return self.batch < self.samples

    @property
    def images(self) -> int:
        """Of a call."""
        return self.samples * self.epochs

    @property
    def flops(self) -> int:
        """Of Z, dW and dX of convolutions and dense layers, as many each; no dX for the first. Bias,
        activation, pooling, loss and update are left out, for all contenders alike."""
        layers = self.net.layer_flops
        return (3 * sum(layers) - layers[0]) * self.images

    @property
    def bytes(self) -> int:
        """Of the images."""
        return 4 * self.samples * int(np.prod(self.net.input_shape))

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """X (N, H, W, C) float32, y (N,) int64: normal deviates, and what a random linear teacher says."""
        return _training_set(self.samples, self.net.input_shape, self.net.n_out)

    def weights(self) -> list[Weights]:
        """What every contender starts from."""
        return self.net.weights()


@dataclass(frozen=True)
class InferCnn:
    """The raw outputs for one batch of images."""

    kind: ClassVar[str] = "infer_cnn"

    network: str
    batch: int
    threads: int
    dtype: str = "float32"

    @property
    def net(self) -> Network:
        """Of the table."""
        return NETWORKS[self.network]

    @property
    def images(self) -> int:
        """Of a call."""
        return self.batch

    @property
    def flops(self) -> int:
        """Of convolutions and dense layers."""
        return sum(self.net.layer_flops) * self.batch

    @property
    def bytes(self) -> int:
        """Of the images."""
        return 4 * self.batch * int(np.prod(self.net.input_shape))

    @cached_property
    def data(self) -> tuple[Array]:
        """X (batch, H, W, C), normal deviates."""
        return (np.random.default_rng(0).standard_normal((self.batch, *self.net.input_shape), np.float32),)

    def weights(self) -> list[Weights]:
        """Of each layer that has them."""
        return self.net.weights()

    def check(self, outputs: Array) -> None:
        """Raise ArithmeticError unless every output agrees with float64 within eight standard deviations of
        what rounding does to it.

        The model: a sum of K terms walks K steps, each off by at most eps / 2 of a partial sum, of size
        sqrt(sum terms^2); the errors that come with h add up in squares, as those of independent errors do.
        """
        expected = (self.batch, self.net.n_out)
        if outputs.shape != expected:
            raise ArithmeticError(f"outputs have shape {outputs.shape}, not {expected}")
        h: Array = self.data[0].astype(np.float64)
        h, variance = _exactly(self.net.layers, h, np.zeros_like(h), iter(self.weights()))
        error, deviation = np.abs(outputs - h), np.sqrt(variance)
        if not np.all(error <= _LAMBDA * deviation):
            raise ArithmeticError(f"outputs are off by up to {error.max():.3g}, above {deviation.max():.3g}")


CnnTask = TrainCnn | InferCnn


def _exactly(
    layers: Sequence[Layer], h: Array, variance: Array, weights: Iterator[Weights]
) -> tuple[Array, Array]:
    """Outputs, and the variance of what rounding does to them."""
    for layer in layers:
        if isinstance(layer, Flatten):
            h, variance = (array.reshape(len(array), -1) for array in (h, variance))
        elif isinstance(layer, Mean):
            # As if all errors of a channel were one.
            h, variance = (array.mean(axis=(1, 2)) for array in (h, variance))
        elif isinstance(layer, MaxPooling):
            # The largest of the variances, for whichever pixel is chosen.
            h, variance = _largest(layer, h, -np.inf), _largest(layer, variance, 0)
        elif isinstance(layer, Residual):
            made, around = (_exactly(part, h, variance, weights) for part in (layer.layers, layer.shortcut))
            h, variance = made[0] + around[0], made[1] + around[1]
            variance = variance + _ROUNDING * h**2
            h = np.maximum(h, 0)
        else:
            weight, bias, terms_of_norm = _folded(next(weights))
            terms = _apply(layer, h**2, weight**2) + terms_of_norm
            rounding = (weight[0].size + 4) * _ROUNDING * terms
            h = _apply(layer, h, weight) + bias
            variance = _apply(layer, variance, weight**2) + rounding
            h = np.maximum(h, 0) if layer.relu else h
    return h, variance


def _folded(given: Weights) -> tuple[Array, Array, Array]:
    """W and b with the normalization in them, in float64, and the sum of squares that b is the sum of."""
    weight, bias = given.weight.astype(np.float64), given.bias.astype(np.float64)
    if given.norm is None:
        return weight, bias, bias**2
    scale, mean, variance = (array.astype(np.float64) for array in given.norm)
    factor = scale / np.sqrt(variance + EPS)
    terms = bias**2 + (mean * factor) ** 2
    return weight * factor[:, None, None, None], bias - mean * factor, terms


def _apply(layer: Convolution | Linear, h: Array, weight: Array) -> Array:
    """W h, of every place of an image."""
    if isinstance(layer, Linear):
        return h @ weight.T
    side = (layer.padding, layer.padding)
    padded = np.pad(h, ((0, 0), side, side, (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel,) * 2, axis=(1, 2))
    return np.tensordot(seen[:, :: layer.stride, :: layer.stride], weight, ((3, 4, 5), (3, 1, 2)))


def _largest(layer: MaxPooling, h: Array, edge: float) -> Array:
    """Of every window; `edge`: what is beyond the image."""
    side = (layer.padding, layer.padding)
    padded = np.pad(h, ((0, 0), side, side, (0, 0)), constant_values=edge)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (layer.size,) * 2, axis=(1, 2))
    largest: Array = seen[:, :: layer.step, :: layer.step].max(axis=(4, 5))
    return largest


@lru_cache(maxsize=1)  # a worker plays many tasks on the same data
def _training_set(samples: int, shape: tuple[int, ...], classes: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, *shape), np.float32)
    rows = x.reshape(samples, -1)
    return x, (rows @ rng.standard_normal((rows.shape[1], classes), np.float32)).argmax(axis=1)
