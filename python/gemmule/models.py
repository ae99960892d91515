"""Networks that are known by name, ready to be trained.

Every function takes the options of `gemmule.Network` beside its own (`rng`, `dtype`, `layout`, `name`).
"""

from collections.abc import Sequence
from typing import Any

from .activations import ActivationLike
from .layers import AvgPool2d, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d
from .network import Network

__all__ = ["lenet5", "mnist_cnn"]


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


def _dropout(rate: float) -> list[Layer]:
    layer = Dropout(rate)  # which checks the rate
    return [layer] if rate else []


def _network(layers: list[Layer], input_shape: Sequence[int] | None, options: dict[str, Any]) -> Network:
    if input_shape is None:
        input_shape = (1, 28, 28) if options.get("layout") == "channels_first" else (28, 28, 1)
    return Network(layers, input_shape=input_shape, **options)
