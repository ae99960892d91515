"""Optimizers. Formulas are PyTorch's; g is the gradient, w the parameter, t counts steps from 1. The learning
rate lr is a number or one of `gemmule.schedules`.

An object keeps its state (momenta, step count) for every network it has trained, so a second `fit` goes on
where the first stopped.
"""

import math
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from . import _core
from .arrays import Array, fraction, unknown_name
from .arrays import not_negative as _not_negative
from .parameters import Block
from .schedules import Schedule

if TYPE_CHECKING:
    from .network import Network


class State:
    """Slots (n_slots, size) beside one block's parameters, and the steps done on them."""

    def __init__(self, slots: Array, steps: int = 0) -> None:
        self.slots = slots
        self.steps = steps


class Optimizer:
    """What all optimizers share. Hyperparameters are attributes and may be changed between steps.

    Pickle or deep-copy an optimizer together with its network, `copy.deepcopy((net, optimizer))`: a copy of
    the optimizer alone starts afresh."""

    rule: ClassVar[str]
    lr: float | Schedule

    def __init__(self) -> None:
        self._states: WeakKeyDictionary[Block, State] = WeakKeyDictionary()
        self._hyper()

    @property
    def t(self) -> int:
        """Steps done."""
        return max((state.steps for state in self._states.values()), default=0)

    def step(self, network: "Network") -> None:
        """One step from the gradients in `.grad`, which stay. DivergenceError, and nothing changed, where the
        update is not finite.

        Where lr is a schedule, it gives the rate of update `t`. ValueError for one that counts in epochs or
        depends on the length of the run, which a loop by hand does not tell."""
        run = self._run(network)
        if isinstance(self.lr, Schedule):
            run.hyper["lr"] = float(self.lr.rates(run.steps, 1)[0])
        _core.update(self.rule, run.hyper, run.steps, run.ranges)
        run.advance(1)

    def _hyper(self) -> dict[str, float]:
        """The rule's checked hyperparameters."""
        raise NotImplementedError

    def _slot_count(self) -> int:
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _run(self, network: "Network") -> "Run":
        """The state and ranges to train `network` with; ValueError where nothing is trainable."""
        hyper = self._hyper()
        ranges: list[_core.Range] = []
        states: dict[int, State] = {}
        previous: tuple[Block, int] | None = None
        for segment in network.trainable_segments():
            block, (begin, end) = segment.placed, segment.span
            state = states.setdefault(id(block), self._state(block))
            # The padding between two segments is zero and stays so.
            if previous == (block, segment.index - 1):
                begin = ranges.pop()[2]
            ranges.append((block.store, state.slots, begin, end))
            previous = block, segment.index
        if not ranges:
            raise ValueError(f"{type(self).__name__}: the network has no trainable parameters")
        return Run(hyper, ranges, list(states.values()))

    def _state(self, block: Block) -> State:
        shape = (self._slot_count(), block.store.size)
        state = self._states.get(block)
        if state is None or state.slots.shape != shape:
            state = State(np.zeros(shape, block.dtype), 0 if state is None else state.steps)
            self._states[block] = state
        return state

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_states": list(self._states.items())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _states=WeakKeyDictionary(state["_states"]))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._config().items())})"
        )


class Run:
    """One optimizer bound to one network."""

    def __init__(self, hyper: dict[str, float], ranges: "list[_core.Range]", states: list[State]) -> None:
        self.hyper = hyper
        self.ranges = ranges
        self.states = states

    @property
    def steps(self) -> int:
        return min(state.steps for state in self.states)

    def advance(self, steps: int) -> None:
        """Note that `steps` more were done."""
        done = self.steps + steps
        for state in self.states:
            state.steps = done


class SGD(Optimizer):
    """w -= lr v with v = momentum v + g (v = g on the first step), g having weight_decay w added.

    nesterov: w -= lr (g + momentum v)."""

    rule = "sgd"

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        super().__init__()

    def _hyper(self) -> dict[str, float]:
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        return {
            "lr": _rate(self.lr, "SGD: lr"),
            "momentum": fraction(self.momentum, "SGD: momentum"),
            "nesterov": float(bool(self.nesterov)),
            "weight_decay": _not_negative(self.weight_decay, "SGD: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 1 if self.momentum else 0


class Adam(Optimizer):
    """w -= lr m' / (sqrt(v') + eps), m' = m / (1 - beta1^t), v' = v / (1 - beta2^t), with running means m of
    g and v of g^2, g having weight_decay w added. Kingma and Ba 2015."""

    rule = "adam"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        super().__init__()

    def _hyper(self) -> dict[str, float]:
        name = type(self).__name__
        try:
            beta1, beta2 = self.betas
        except (TypeError, ValueError):
            raise ValueError(f"{name}: betas is {self.betas!r}; it must be a pair of numbers") from None
        return {
            "lr": _rate(self.lr, f"{name}: lr"),
            "beta1": fraction(beta1, f"{name}: betas[0]"),
            "beta2": fraction(beta2, f"{name}: betas[1]"),
            "eps": _not_negative(self.eps, f"{name}: eps"),
            "weight_decay": _not_negative(self.weight_decay, f"{name}: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 2


class AdamW(Adam):
    """Adam with the decay apart from the gradient: w -= lr weight_decay w, then Adam's step. Loshchilov and
    Hutter 2019."""

    rule = "adamw"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)


_CLASSES: dict[str, type[SGD | Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
NAMES = tuple(_CLASSES)


def resolve(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer from a name (with its defaults); ValueError for an unknown one, TypeError for anything
    else."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"optimizer must be a name ({', '.join(NAMES)}) or an Optimizer, not {optimizer!r}")
    if optimizer not in _CLASSES:
        raise unknown_name("optimizer", optimizer, NAMES)
    return _CLASSES[optimizer]()


def _rate(lr: float | Schedule, what: str) -> float:
    """The checked rate. Of a schedule NaN: whoever runs the updates puts their own rates there."""
    return math.nan if isinstance(lr, Schedule) else _not_negative(lr, what)
