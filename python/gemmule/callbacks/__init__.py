"""Code that runs between epochs: `net.fit(..., callbacks=[gm.callbacks.EarlyStopping(patience=5)])`."""

from .base import Callback, LambdaCallback
from .checkpoint import Checkpoint
from .loggers import CSVLogger, TensorBoard
from .monitoring import EarlyStopping, ReduceOnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LambdaCallback",
    "ReduceOnPlateau",
    "TensorBoard",
]
