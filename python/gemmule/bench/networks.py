"""The convolutional networks of `bench cnn`: a row of NETWORKS each, from which every contender builds its
own. Workers import this; it needs NumPy alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """`filters` of kernel x kernel pixels, with a bias."""

    filters: int
    kernel: int
    padding: int = 0
    stride: int = 1
    relu: bool = True


@dataclass(frozen=True)
class MaxPooling:
    """The largest of every size x size pixels, in steps of `size`."""

    size: int


@dataclass(frozen=True)
class Flatten:
    """(H, W, C) to a row, as it lies channels-last. Who works channels-first permutes the next weights."""


@dataclass(frozen=True)
class Linear:
    """Z = X W^T + b."""

    n_out: int
    relu: bool = True


Layer = Convolution | MaxPooling | Flatten | Linear


@dataclass(frozen=True)
class Network:
    """Layers on images of `input_shape` (H, W, C), and how it is trained: plain gradient descent with the
    rate `lr` on `samples` images, in batches. Enough of them that a call's constant costs do not count."""

    input_shape: Shape
    layers: tuple[Layer, ...]
    batch: int
    samples: int
    lr: float

    def shapes(self) -> Iterator[tuple[Layer, Shape, Shape]]:
        """Every layer with the shapes of its input and output, without the batch."""
        shape = self.input_shape
        for layer in self.layers:
            before, shape = shape, _output_shape(layer, shape)
            yield layer, before, shape

    @property
    def layer_flops(self) -> list[int]:
        """2 per multiply-add of each layer with weights, for one image forward; taps on the padding count."""
        return [2 * math.prod(weight) * math.prod(after[:-1]) for weight, after in self._weighted()]

    @property
    def n_out(self) -> int:
        """Classes."""
        return [after for _, _, after in self.shapes()][-1][0]

    def weights(self) -> list[tuple[Array, Array]]:
        """(W, b) of each layer that has them: filters (n_out, k, k, n_in) or (n_out, n_in). He's normal
        deviates, and biases that are not zero, so that who leaves one out is found."""
        rng = np.random.default_rng(1)
        return [
            (
                rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:]))),
                rng.standard_normal(shape[0], np.float32) * np.float32(0.1),
            )
            for shape, _ in self._weighted()
        ]

    def _weighted(self) -> Iterator[tuple[Shape, Shape]]:
        """The shapes of W and of the output of each layer with weights."""
        for layer, before, after in self.shapes():
            if isinstance(layer, Convolution):
                yield (layer.filters, layer.kernel, layer.kernel, before[2]), after
            elif isinstance(layer, Linear):
                yield (layer.n_out, *before), after


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Convolution):
        sides = ((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in shape[:2])
        return (*sides, layer.filters)
    if isinstance(layer, MaxPooling):
        return (shape[0] // layer.size, shape[1] // layer.size, shape[2])
    return (math.prod(shape),) if isinstance(layer, Flatten) else (layer.n_out,)


NETWORKS = {
    # 30 updates; 71 MFLOP an image in training.
    "mnist-cnn": Network(
        (28, 28, 1),
        (
            Convolution(32, 3),
            Convolution(64, 3),
            MaxPooling(2),
            Flatten(),
            Linear(128),
            Linear(10, relu=False),
        ),
        batch=64,
        samples=1_920,
        lr=0.02,
    ),
    # LeCun et al. 1998, with ReLU and max-pooling as it is built today; 100 updates.
    "lenet-5": Network(
        (28, 28, 1),
        (
            Convolution(6, 5, padding=2),
            MaxPooling(2),
            Convolution(16, 5),
            MaxPooling(2),
            Flatten(),
            Linear(120),
            Linear(84),
            Linear(10, relu=False),
        ),
        batch=64,
        samples=6_400,
        lr=0.02,
    ),
}
