"""Optimizers. Formulas are PyTorch's where it has the rule; g is the gradient, w the parameter, t counts
steps from 1. The learning rate lr is a number or one of `gemmule.schedules`.

    SGD       momentum, Nesterov
    Adam      Kingma and Ba 2015; AdamW with the decay apart from the gradient
    RMSprop   Tieleman and Hinton 2012; with momentum, centered
    Adagrad   Duchi et al. 2011
    Lion      Chen et al. 2023
    Muon      Jordan et al. 2024: the momentum of a matrix made orthogonal
    LBFGS     SciPy's L-BFGS-B, on all samples at once

`Optimizer` lists what every one of them but LBFGS takes: decay, l1, clipping, a running average of the
parameters. An object keeps its state (momenta, averages, step count) for every network it has trained, so a
second `fit` goes on where the first stopped.
"""

from ..arrays import unknown_name
from .base import Optimizer as Optimizer
from .base import Run as Run
from .base import State as State
from .lbfgs import LBFGS as LBFGS
from .muon import Muon as Muon
from .rules import SGD as SGD
from .rules import Adagrad as Adagrad
from .rules import Adam as Adam
from .rules import AdamW as AdamW
from .rules import Lion as Lion
from .rules import RMSprop as RMSprop

_CLASSES: dict[str, type[SGD | Adam | RMSprop | Adagrad | Lion | Muon | LBFGS]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "lion": Lion,
    "muon": Muon,
    "lbfgs": LBFGS,
}
NAMES = tuple(_CLASSES)


def resolve(optimizer: str | Optimizer | LBFGS) -> Optimizer | LBFGS:
    """An optimizer from a name (with its defaults); ValueError for an unknown one, TypeError for anything
    else."""
    if isinstance(optimizer, Optimizer | LBFGS):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"optimizer must be a name ({', '.join(NAMES)}) or an Optimizer, not {optimizer!r}")
    if optimizer not in _CLASSES:
        raise unknown_name("optimizer", optimizer, NAMES)
    return _CLASSES[optimizer]()
