"""Networks with normalizations that several test files train."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]


def network(shape: tuple[int, ...], *layers: gm.Layer, **options: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **options})


def bits(net: gm.Network) -> dict[str, bytes]:
    """Every bit of parameters and state."""
    return {name: array.tobytes() for name, array in net.state_dict().items()}


def data(rows: int = 96, dtype: str = "float32") -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 6, 5, 2)).astype(dtype) * 2 + 1
    return x, rng.integers(0, 3, rows)


def convolutional(**options: Any) -> gm.Network:
    """Normalizations of images and of rows, fused with an activation and not."""
    layers = [
        gm.Conv2d(2, 5, 3, bias=False), gm.BatchNorm(5, "relu"), gm.Conv2d(5, 4, 2), gm.BatchNorm(4),
        gm.Flatten(), gm.Dense(None, 7, bias=False), gm.BatchNorm(None, "gelu", momentum=0.3), gm.Dense(7, 3),
    ]  # fmt: skip
    return network((6, 5, 2), *layers, **{"dtype": "float32", **options})


def shake(net: gm.Network) -> None:
    """Parameters and state away from where they begin, so that no factor is 1 and no statistic 0."""
    rng = np.random.default_rng(3)
    for layer in net:
        if isinstance(layer, gm.BatchNorm):
            if layer.weight is not None:
                layer.weight += rng.uniform(-0.5, 0.5, layer.n)
                layer.bias += rng.uniform(0.2, 0.5, layer.n)
            layer.running_mean += rng.standard_normal(layer.n)
            layer.running_var *= rng.uniform(0.5, 2, layer.n)
