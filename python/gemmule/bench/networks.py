"""The convolutional networks of `bench cnn`: a row of NETWORKS each, from which every contender builds its
own. Workers import this; it needs NumPy alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """`filters` of kernel x kernel pixels, with a bias, or with a normalization over the batch behind it."""

    filters: int
    kernel: int
    padding: int = 0
    stride: int = 1
    relu: bool = True
    norm: bool = False


@dataclass(frozen=True)
class MaxPooling:
    """The largest of every size x size pixels, in steps of `size` or of `stride`."""

    size: int
    stride: int = 0
    padding: int = 0

    @property
    def step(self) -> int:
        """By what the window moves."""
        return self.stride or self.size


@dataclass(frozen=True)
class Mean:
    """Over all pixels of each channel."""


@dataclass(frozen=True)
class Residual:
    """ReLU of the sum of what `layers` make and of the input, or of what `shortcut` makes of it."""

    layers: tuple[Convolution, ...]
    shortcut: tuple[Convolution, ...] = ()


@dataclass(frozen=True)
class Flatten:
    """(H, W, C) to a row, as it lies channels-last. Who works channels-first permutes the next weights."""


@dataclass(frozen=True)
class Linear:
    """Z = X W^T + b."""

    n_out: int
    relu: bool = True


Layer = Convolution | MaxPooling | Mean | Residual | Flatten | Linear

EPS = 1e-5  # of every normalization


class Norm(NamedTuple):
    """Of a normalization: its factors, and its running statistics, which are used in inference alone."""

    scale: Array
    mean: Array
    variance: Array


class Weights(NamedTuple):
    """Of a layer: filters (n_out, k, k, n_in) or (n_out, n_in). bias: that of the normalization, where there
    is one."""

    weight: Array
    bias: Array
    norm: Norm | None = None


def shapes(layers: Sequence[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    """Every layer with the shapes of its input and output, without the batch."""
    for layer in layers:
        before, shape = shape, _output_shape(layer, shape)
        yield layer, before, shape


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
        """Every layer with the shapes of its input and output, without the batch; those within a `Residual`
        are its own to tell."""
        return shapes(self.layers, self.input_shape)

    @property
    def layer_flops(self) -> list[int]:
        """2 per multiply-add of each layer with weights, for one image forward; taps on the padding count."""
        return [
            2 * math.prod(weight) * math.prod(after[:-1])
            for _, weight, after in _weighted(self.layers, self.input_shape)
        ]

    @property
    def n_out(self) -> int:
        """Classes."""
        return [after for _, _, after in self.shapes()][-1][0]

    def weights(self) -> list[Weights]:
        """Of each layer that has them; within a `Residual` its layers come first, then the shortcut. He's
        normal deviates, and biases that are not zero, so that who leaves one out is found."""
        rng = np.random.default_rng(1)
        made = []
        for layer, shape, _ in _weighted(self.layers, self.input_shape):
            weight = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
            bias = rng.standard_normal(shape[0], np.float32) * np.float32(0.1)
            norm = _norm(rng, shape[0]) if isinstance(layer, Convolution) and layer.norm else None
            made.append(Weights(weight, bias, norm))
        return made


def _norm(rng: np.random.Generator, channels: int) -> Norm:
    scale, mean, variance = rng.random((3, channels), np.float32)
    return Norm(scale + np.float32(0.5), np.float32(0.2) * mean, variance + np.float32(0.5))


def _weighted(layers: Sequence[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    """Each layer with weights, the shape of W, and that of the output."""
    for layer, before, after in shapes(layers, shape):
        if isinstance(layer, Convolution):
            yield layer, (layer.filters, layer.kernel, layer.kernel, before[2]), after
        elif isinstance(layer, Linear):
            yield layer, (layer.n_out, *before), after
        elif isinstance(layer, Residual):
            yield from _weighted(layer.layers, before)
            yield from _weighted(layer.shortcut, before)


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Convolution):
        sides = ((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in shape[:2])
        return (*sides, layer.filters)
    if isinstance(layer, MaxPooling):
        sides = ((side + 2 * layer.padding - layer.size) // layer.step + 1 for side in shape[:2])
        return (*sides, shape[2])
    if isinstance(layer, Residual):
        for inner in layer.layers:
            shape = _output_shape(inner, shape)
        return shape
    if isinstance(layer, Mean):
        return shape[2:]
    return (math.prod(shape),) if isinstance(layer, Flatten) else (layer.n_out,)


def _convolution(filters: int, kernel: int, stride: int = 1, relu: bool = True) -> Convolution:
    """With a normalization, and padded so that a stride of 1 keeps the size."""
    return Convolution(filters, kernel, kernel // 2, stride, relu, norm=True)


def _stage(filters: int, blocks: int, stride: int) -> list[Residual]:
    """Blocks of two convolutions; a stride of 2 is the first one's, whose shortcut is a convolution then."""
    plain = Residual((_convolution(filters, 3), _convolution(filters, 3, relu=False)))
    if stride == 1:
        return [plain] * blocks
    layers = _convolution(filters, 3, stride), _convolution(filters, 3, relu=False)
    first = Residual(layers, (_convolution(filters, 1, stride, relu=False),))
    return [first] + [plain] * (blocks - 1)


_CLASSES = Linear(10, relu=False)

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
        lr=0.002,
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
        lr=0.002,
    ),
    # He et al. 2016, the form for CIFAR, with convolutions as shortcuts; 4 updates, 242 MFLOP an image.
    "resnet-20": Network(
        (32, 32, 3),
        (_convolution(16, 3), *_stage(16, 3, 1), *_stage(32, 3, 2), *_stage(64, 3, 2), Mean(), _CLASSES),
        batch=128,
        samples=512,
        lr=0.002,
    ),
    # 3 updates.
    "resnet-18": Network(
        (64, 64, 3),
        (
            _convolution(64, 7, 2),
            MaxPooling(3, 2, 1),
            *_stage(64, 2, 1),
            *_stage(128, 2, 2),
            *_stage(256, 2, 2),
            *_stage(512, 2, 2),
            Mean(),
            _CLASSES,
        ),
        batch=32,
        samples=96,
        lr=0.002,
    ),
}
