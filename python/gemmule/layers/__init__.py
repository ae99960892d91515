"""Layers: what a network is made of."""

from .activation import Activation
from .base import Layer
from .concat import Concat
from .conv import Conv1d, Conv2d
from .conv_transpose import ConvTranspose2d
from .dense import Dense
from .dropout import Dropout, Dropout2d
from .flatten import Flatten
from .group_norm import GroupNorm, LayerNorm
from .norm import BatchNorm
from .pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .residual import Residual
from .resize import Upsample, ZeroPad2d

__all__ = [
    "Activation", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm", "Concat", "Conv1d", "Conv2d",
    "ConvTranspose2d", "Dense", "Dropout", "Dropout2d", "Flatten", "GlobalAvgPool2d", "GroupNorm", "Layer",
    "LayerNorm", "MaxPool2d", "Residual", "Upsample", "ZeroPad2d",
]  # fmt: skip
