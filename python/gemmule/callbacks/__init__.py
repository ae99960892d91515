"""Code that runs between epochs: `net.fit(..., callbacks=[gm.callbacks.EarlyStopping(patience=5)])`."""

from .base import Callback, LambdaCallback
from .loggers import CSVLogger, TensorBoard
from .monitoring import EarlyStopping, ReduceOnPlateau

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "LambdaCallback", "ReduceOnPlateau", "TensorBoard"]
