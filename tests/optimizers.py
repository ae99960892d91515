"""The optimizers that several test files go through, each beside its formula of the references."""

from collections.abc import Callable
from typing import NamedTuple

import optimizer_reference as wide
import reference

import gemmule as gm


class Case(NamedTuple):
    make: Callable[..., gm.optim.Optimizer]  # takes the keywords of `Optimizer`
    rule: Callable[[], wide.Rule]


CASES = {
    "sgd": Case(lambda **k: gm.SGD(0.05, **k), lambda: reference.SGD(0.05)),
    "nesterov": Case(
        lambda **k: gm.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3, **k),
        lambda: reference.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ),
    "adam": Case(
        lambda **k: gm.Adam(0.01, weight_decay=1e-3, **k), lambda: reference.Adam(0.01, weight_decay=1e-3)
    ),
    "adamw": Case(
        lambda **k: gm.AdamW(0.01, weight_decay=0.1, **k),
        lambda: reference.Adam(0.01, weight_decay=0.1, decoupled=True),
    ),
    "rmsprop": Case(
        lambda **k: gm.RMSprop(0.001, weight_decay=1e-3, **k),
        lambda: wide.RMSprop(0.001, weight_decay=1e-3),
    ),
    "rmsprop momentum": Case(
        lambda **k: gm.RMSprop(0.001, alpha=0.95, momentum=0.9, **k),
        lambda: wide.RMSprop(0.001, alpha=0.95, momentum=0.9),
    ),
    "rmsprop centered": Case(
        lambda **k: gm.RMSprop(0.001, eps=1e-4, centered=True, **k),
        lambda: wide.RMSprop(0.001, eps=1e-4, centered=True),
    ),
    "rmsprop centered momentum": Case(
        lambda **k: gm.RMSprop(0.001, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.01, **k),
        lambda: wide.RMSprop(0.001, eps=1e-4, momentum=0.5, centered=True, weight_decay=0.01),
    ),
    "adagrad": Case(
        lambda **k: gm.Adagrad(0.05, lr_decay=0.01, initial_accumulator_value=0.1, weight_decay=1e-3, **k),
        lambda: wide.Adagrad(0.05, lr_decay=0.01, start=0.1, weight_decay=1e-3),
    ),
    "lion": Case(
        lambda **k: gm.Lion(0.001, weight_decay=0.1, **k), lambda: wide.Lion(0.001, weight_decay=0.1)
    ),
    "muon": Case(
        lambda **k: gm.Muon(0.01, adamw_ratio=0.5, adamw_weight_decay=0.01, **k),
        lambda: wide.Muon(0.01, vectors=reference.Adam(0.005, weight_decay=0.01, decoupled=True)),
    ),
    "muon plain": Case(
        lambda **k: gm.Muon(
            0.01, 0.9, nesterov=False, weight_decay=0, ns_steps=4, adjust_lr_fn="match_rms_adamw", **k
        ),
        lambda: wide.Muon(
            0.01, 0.9, nesterov=False, weight_decay=0, steps=4, match_rms=True,
            vectors=reference.Adam(0.01, decoupled=True),
        ),
    ),
}  # fmt: skip

EXTRAS: dict[str, dict[str, float]] = {
    "l1": {"l1": 0.01},
    "clip_value": {"clip_value": 0.3},
    "clip_norm": {"clip_norm": 1.5},
    "max_norm": {"max_norm": 0.9},
    "ema": {"ema": 0.9},
    "all": {"l1": 0.01, "clip_value": 0.8, "clip_norm": 2.0, "max_norm": 0.9, "ema": 0.7},
}
