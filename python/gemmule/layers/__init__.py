"""Layers: what a network is made of."""

from .activation import Activation
from .base import Layer
from .conv import Conv1d, Conv2d
from .dense import Dense
from .dropout import Dropout
from .flatten import Flatten
from .group_norm import GroupNorm, LayerNorm
from .norm import BatchNorm
from .pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .residual import Residual

__all__ = [
    "Activation", "AvgPool2d", "BatchNorm", "Conv1d", "Conv2d", "Dense", "Dropout", "Flatten",
    "GlobalAvgPool2d", "GroupNorm", "Layer", "LayerNorm", "MaxPool2d", "Residual",
]  # fmt: skip
