"""gemmule: neural networks on compiled linear algebra, with NumPy arrays in and out.

import gemmule as gm

X, y = gm.datasets.digits()
net = gm.Network([gm.Dense(64, 128, "relu"), gm.Dense(128, 10)], rng=0)
net.fit(X, y, loss="cross_entropy", optimizer=gm.Adam(1e-3), epochs=20, validation_split=0.2)
net.predict(X[:5])
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import _core, callbacks, losses, ops, optim, schedules
from ._precision import numerics, set_numerics
from .callbacks import Callback
from .config import num_threads, set_num_threads, set_verbose, show_config
from .errors import DeviceError, DivergenceError, DTypeError, FileError, ShapeError
from .history import History
from .layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool2d,
    Residual,
    Upsample,
    ZeroPad2d,
)
from .network import Network
from .optim import LBFGS, SGD, Adagrad, Adam, AdamW, Lion, Muon, RMSprop
from .parameters import Parameter

if TYPE_CHECKING:
    from . import augment, cli, datasets, io, metrics, models, plot, tables
    from ._batching import batches
    from .augment import Augment
    from .io import load

__version__ = _core.build_info()["version"]

__all__ = [
    "LBFGS",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool2d",
    "Augment",
    "AvgPool2d",
    "BatchNorm",
    "Callback",
    "Concat",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "DTypeError",
    "Dense",
    "DeviceError",
    "DivergenceError",
    "Dropout",
    "Dropout2d",
    "FileError",
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "History",
    "Layer",
    "LayerNorm",
    "Lion",
    "MaxPool2d",
    "Muon",
    "Network",
    "Parameter",
    "RMSprop",
    "Residual",
    "ShapeError",
    "Upsample",
    "ZeroPad2d",
    "__version__",
    "augment",
    "batches",
    "callbacks",
    "cli",
    "datasets",
    "io",
    "load",
    "losses",
    "metrics",
    "models",
    "num_threads",
    "numerics",
    "ops",
    "optim",
    "plot",
    "schedules",
    "set_num_threads",
    "set_numerics",
    "set_verbose",
    "show_config",
    "tables",
]

# Imported when first asked for: `import gemmule` stays short.
_LAZY = frozenset({"augment", "cli", "datasets", "io", "metrics", "models", "plot", "tables"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name == "load":
        from .io import load

        return load
    if name == "batches":
        from ._batching import batches

        return batches
    if name == "Augment":
        from .augment import Augment

        return Augment
    raise AttributeError(f"module 'gemmule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
