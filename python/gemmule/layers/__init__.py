"""Layers: what a network is made of."""

from .activation import Activation
from .base import Layer
from .dense import Dense
from .dropout import Dropout
from .flatten import Flatten

__all__ = ["Activation", "Dense", "Dropout", "Flatten", "Layer"]
