"""Networks with layers that have a way around them."""

from typing import Any

import numpy as np

import gemmule as gm

LABELS = np.array([0, 2, 1, 2])


def network(shape: tuple[int, ...], *layers: gm.Layer, **options: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **options})


def block(n_in: int = 4, n_out: int = 4, stride: int = 1, activation: str | None = "relu") -> gm.Residual:
    """ResNet's: convolutions and normalizations, with a convolution around them where the shapes differ."""
    around = [gm.Conv2d(n_in, n_out, 1, stride=stride, bias=False), gm.BatchNorm(n_out)]
    return gm.Residual(
        gm.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        gm.BatchNorm(n_out, "relu"),
        gm.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        gm.BatchNorm(n_out),
        shortcut=None if (n_in, stride) == (n_out, 1) else around,
        activation=activation,
    )


def stirred(net: gm.Network, seed: int = 5) -> gm.Network:
    """With running statistics and factors that are no defaults."""
    rng = np.random.default_rng(seed)
    for name, array in (*net.named_parameters(), *net.named_state()):
        if name.endswith(("running_var", "weight")) and array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif array.ndim == 1:
            array[...] = rng.normal(0, 0.3, array.shape)
    return net


def everything(**options: Any) -> gm.Network:
    """Shared layers, nested ones, networks in branches, frozen ones."""
    shared = gm.Conv2d(4, 4, 1, bias=False)
    frozen = block()
    frozen.trainable = False
    layers = [
        gm.Conv2d(2, 4, 3, padding=1), block(), shared, gm.Residual(shared, block(4, 4), name="outer"),
        gm.Residual(gm.Network([gm.Conv2d(4, 6, 1), gm.BatchNorm(6)], name="inner"),
                    shortcut=gm.Conv2d(4, 6, 1), activation="leaky_relu", slope=0.3),
        gm.Conv2d(6, 4, 1), frozen, gm.GlobalAvgPool2d(), gm.Dense(4, 3),
    ]  # fmt: skip
    shape = (2, 6, 5) if options.get("layout") == "channels_first" else (6, 5, 2)
    return stirred(network(shape, *layers, **{"dtype": "float32", **options}))
