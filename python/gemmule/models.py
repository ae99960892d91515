"""Networks that are known by name, ready to be trained.

Every function takes the options of `gemmule.Network` beside its own (`rng`, `dtype`, `layout`, `name`).
"""

from collections.abc import Sequence
from typing import Any

from .activations import ActivationLike
from .arrays import positive
from .layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    Residual,
)
from .network import Network

__all__ = ["lenet5", "mnist_cnn", "mobilenet_small", "resnet18", "resnet20"]

# Of mobilenet_small: channels, blocks, stride of the first.
_MOBILE_STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 3, 2), (96, 1, 1))
_EXPANSION = 6  # the source's


def lenet5(
    classes: int = 10,
    activation: ActivationLike = "tanh",
    dropout: float = 0.0,
    *,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> Network:
    """LeNet-5: two convolutions of 5 x 5 with 6 and 16 filters, a mean over 2 x 2 behind each, dense layers
    of 120, 84 and `classes`. 61,706 parameters for MNIST.

    input_shape: of one image; None is 28 x 28 with one channel, which the first convolution pads to the
        source's 32 x 32. dropout: behind both hidden dense layers.

    LeCun, Bottou, Bengio and Haffner 1998, but for three things: the means have no weights, every filter of
    the second convolution sees all six maps, and the outputs are plain logits."""
    hidden: list[Layer] = []
    for width in (120, 84):
        hidden += [Dense(None, width, activation), *_dropout(dropout)]
    layers = [
        Conv2d(None, 6, 5, activation, padding=2),
        AvgPool2d(2),
        Conv2d(6, 16, 5, activation),
        AvgPool2d(2),
        Flatten(),
        *hidden,
        Dense(84, classes),
    ]
    return _network(layers, input_shape, options)


def mnist_cnn(
    classes: int = 10,
    activation: ActivationLike = "relu",
    dropout: float = 0.0,
    *,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> Network:
    """A small network for small images: convolutions of 3 x 3 with 32 and 64 filters, the maximum over 2 x 2,
    dense layers of 128 and `classes`. 1,199,882 parameters for MNIST, of whose test images it
    gets 99 % in 3 epochs of `Adam(gm.schedules.Cosine(1e-3))`.

    input_shape: of one image; None is 28 x 28 with one channel. dropout: before the last layer."""
    layers = [
        Conv2d(None, 32, 3, activation),
        Conv2d(32, 64, 3, activation),
        MaxPool2d(2),
        Flatten(),
        Dense(None, 128, activation),
        *_dropout(dropout),
        Dense(128, classes),
    ]
    return _network(layers, input_shape, options)


def resnet20(classes: int = 10, *, input_shape: Sequence[int] | None = None, **options: Any) -> Network:
    """ResNet-20 for small images: a convolution of 3 x 3 with 16 filters, three stages of three blocks with
    16, 32 and 64, of which the later ones begin with a stride of 2, the mean over all pixels, `classes`
    outputs. 272,474 parameters for 10 classes.

    input_shape: of one image; None is 32 x 32 with three channels (CIFAR).

    He, Zhang, Ren and Sun 2016, section 4.2, but that the shortcuts between stages are convolutions of 1 x 1
    (their option B)."""
    layers: list[Layer] = [*_conv_norm(None, 16, 3, "relu")]
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        n_in = 16 if stride == 1 else width // 2
        layers += [_basic_block(n_in, width, stride), *(_basic_block(width, width) for _ in range(2))]
    layers += [GlobalAvgPool2d(), Dense(64, classes)]
    return _network(layers, input_shape, options, (32, 32, 3))


def resnet18(classes: int = 1000, *, input_shape: Sequence[int] | None = None, **options: Any) -> Network:
    """ResNet-18: a convolution of 7 x 7 with 64 filters and stride 2, the maximum over 3 x 3 with stride 2,
    four stages of two blocks with 64, 128, 256 and 512, the mean over all pixels, `classes` outputs.
    11,689,512 parameters for 1000 classes.

    input_shape: of one image; None is 224 x 224 with three channels. Parameters are called as in PyTorch's
    ResNet-18 ("layer2.0.conv1.weight"), "shortcut" in place of "downsample"; `gm.io.load_torch` reads its
    weights.

    He, Zhang, Ren and Sun 2016."""
    layers: list[Layer] = [
        *_conv_norm(None, 64, 7, "relu", stride=2, names=("conv1", "bn1")),
        MaxPool2d(3, stride=2, padding=1, name="maxpool"),
    ]
    for stage, width in enumerate((64, 128, 256, 512)):
        n_in, stride = (64, 1) if stage == 0 else (width // 2, 2)
        blocks = [_basic_block(n_in, width, stride), _basic_block(width, width)]
        layers.append(Network(blocks, name=f"layer{stage + 1}"))
    layers += [GlobalAvgPool2d(name="avgpool"), Dense(512, classes, name="fc")]
    return _network(layers, input_shape, options, (224, 224, 3))


def mobilenet_small(
    classes: int = 10, width: float = 1.0, *, input_shape: Sequence[int] | None = None, **options: Any
) -> Network:
    """A small MobileNetV2 for images from 32 x 32 up: a convolution of 3 x 3 with 16 filters, ten inverted
    residuals with 16 to 96 channels, of which three have a stride of 2, a convolution of 1 x 1 with 256
    filters, the mean over all pixels, `classes` outputs. 282,362 parameters for 10 classes.

    An inverted residual is a convolution of 1 x 1 to six times the channels, a depthwise one of 3 x 3, and
    one of 1 x 1 back, without an activation; where the shape stays, with a way around them.

    width: all numbers of filters are multiplied by it and rounded to multiples of 8, by no more than a tenth
        down.
    input_shape: of one image; None is 32 x 32 with three channels.

    Sandler, Howard, Zhu, Zhmoginov and Chen 2018, but with fewer blocks, for smaller images, and relu for
    their relu6, which this library does not have."""
    positive(width, "mobilenet_small: width")
    n_in = _rounded(16 * width)
    layers: list[Layer] = _conv_norm(None, n_in, 3, "relu")
    for channels, count, stride in _MOBILE_STAGES:
        n_out = _rounded(channels * width)
        for block in range(count):
            layers.append(_inverted_residual(n_in, n_out, stride if block == 0 else 1))
            n_in = n_out
    last = _rounded(256 * width)
    layers += [*_conv_norm(n_in, last, 1, "relu"), GlobalAvgPool2d(), Dense(last, classes)]
    return _network(layers, input_shape, options, (32, 32, 3))


def _inverted_residual(n_in: int, n_out: int, stride: int) -> Layer:
    inner = _EXPANSION * n_in
    layers = [
        *_conv_norm(n_in, inner, 1, "relu"),
        *_conv_norm(inner, inner, 3, "relu", stride, groups=inner),
        *_conv_norm(inner, n_out, 1),
    ]
    return Residual(*layers) if stride == 1 and n_in == n_out else Network(layers)


def _rounded(channels: float) -> int:
    """A multiple of 8, at least 8, as the source's implementation rounds."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def _conv_norm(
    n_in: int | None,
    n_out: int,
    kernel: int,
    activation: ActivationLike = None,
    stride: int = 1,
    groups: int = 1,
    names: tuple[str | None, str | None] = (None, None),
) -> list[Layer]:
    """A convolution that keeps the image's size, but for its stride, and the normalization behind it."""
    conv = Conv2d(
        n_in,
        n_out,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
        init="he",
        name=names[0],
    )
    return [conv, BatchNorm(n_out, activation, name=names[1])]


def _basic_block(n_in: int, n_out: int, stride: int = 1) -> Layer:
    """Two convolutions of 3 x 3 with a way around them."""
    shortcut = None if stride == 1 and n_in == n_out else _conv_norm(n_in, n_out, 1, stride=stride)
    return Residual(
        *_conv_norm(n_in, n_out, 3, "relu", stride, names=("conv1", "bn1")),
        *_conv_norm(n_out, n_out, 3, names=("conv2", "bn2")),
        shortcut=shortcut,
        activation="relu",
    )


def _dropout(rate: float) -> list[Layer]:
    layer = Dropout(rate)  # which checks the rate
    return [layer] if rate else []


def _network(
    layers: list[Layer],
    input_shape: Sequence[int] | None,
    options: dict[str, Any],
    usual: tuple[int, int, int] = (28, 28, 1),
) -> Network:
    if input_shape is None:
        input_shape = (usual[2], *usual[:2]) if options.get("layout") == "channels_first" else usual
    return Network(layers, input_shape=input_shape, **options)
