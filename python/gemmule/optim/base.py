"""What optimizers share: settings that each of them takes, state beside the parameters, a step by hand."""

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict
from weakref import WeakKeyDictionary

import numpy as np

from .. import _core
from ..arrays import Array, fraction, not_negative, positive
from ..parameters import Block, Segment
from ..schedules import Schedule

if TYPE_CHECKING:
    from ..network import Network


class Extras(TypedDict, total=False):
    """The keywords that `Optimizer` describes."""

    l1: float
    clip_value: float | None
    clip_norm: float | None
    max_norm: float | None
    ema: float | None


class State:
    """Slots (n, size) beside one block's parameters, the running average last, and the steps done on them."""

    def __init__(self, slots: Array, layout: tuple[int, bool], steps: int) -> None:
        self.slots = slots
        self.layout = layout  # how many are the rule's, and whether an average follows
        self.steps = steps
        self.trained: set[int] = set()  # the segments that were walked


class Optimizer:
    """What all optimizers share. Hyperparameters are attributes and may be changed between steps.

    Every optimizer takes these keywords too:

    weight_decay: as the rule says.
    l1: adds l1 sign(w) to the gradient, 0 at w = 0.
    clip_value: clamps each element of the gradient to [-clip_value, clip_value].
    clip_norm: scales the gradients by min(1, clip_norm / (norm + 1e-6)), norm the 2-norm over all trained
        parameters, as `torch.nn.utils.clip_grad_norm_`.
    max_norm: after the update each row of a weight matrix, a unit's incoming weights, is scaled to a 2-norm
        of at most max_norm (Srivastava et al. 2014).
    ema: a running average a <- ema a + (1 - ema) w of the parameters after each update, from the parameters
        before the first one; see `average` and `averaged`.

    In this order: clip_value, clip_norm, l1 and decay, the rule, max_norm, ema. `.grad` stays as it was made.

    Pickle or deep-copy an optimizer together with its network, `copy.deepcopy((net, optimizer))`: a copy of
    the optimizer alone starts afresh."""

    rule: ClassVar[str]
    lr: float | Schedule

    def __init__(
        self,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        ema: float | None = None,
    ) -> None:
        self.l1 = l1
        self.clip_value = clip_value
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.ema = ema
        self._states: WeakKeyDictionary[Block, State] = WeakKeyDictionary()
        self._settings()

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

    def average(self, network: "Network") -> dict[str, Array]:
        """Copies of the running averages by name, as `Network.state_dict`. What this optimizer has not
        trained is as it is in the network. ValueError without `ema`."""
        if self.ema is None:
            raise ValueError(f"{type(self).__name__}: it keeps no average; give ema, as in ema=0.999")
        return {name: self._averaged(segment) for name, segment, _ in network.segments()}

    @contextlib.contextmanager
    def averaged(self, network: "Network") -> Iterator[None]:
        """`with optimizer.averaged(network): ...`: within, the network's parameters are their averages, and a
        `fit` raises. Behind it they are again what they were before. ValueError without `ema`."""
        from ..training import _alone

        averages = self.average(network)
        with _alone(network):
            kept = network.state_dict()
            network.load_state_dict(averages)
            try:
                yield
            finally:
                network.load_state_dict(kept)

    # -- for the rules ---------------------------------------------------------------------------------------

    def _hyper(self) -> dict[str, float]:
        """The rule's checked hyperparameters, by the names that `_core.Trainer.run` documents."""
        raise NotImplementedError

    def _slot_count(self) -> int:
        """The arrays that the rule keeps beside the parameters."""
        raise NotImplementedError

    def _slot_start(self) -> float:
        """What they begin with."""
        return 0.0

    def _takes_matrices(self) -> bool:
        return self.max_norm is not None

    # -- state -----------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, float]:
        """All hyperparameters, checked."""
        name = type(self).__name__
        settings = self._hyper() | {"l1": not_negative(self.l1, f"{name}: l1")}
        for extra in ("clip_value", "clip_norm", "max_norm"):
            value = getattr(self, extra)
            if value is not None:
                settings[extra] = positive(value, f"{name}: {extra}")
        if self.ema is not None:
            settings["ema"] = fraction(self.ema, f"{name}: ema")
            if settings["ema"] == 0:
                raise ValueError(f"{name}: ema is {self.ema}; it must be above 0 and below 1")
        return settings

    def _run(self, network: "Network") -> "Run":
        """The state and ranges to train `network` with; ValueError where nothing is trainable."""
        hyper = self._settings()
        ranges: list[_core.Range] = []
        states: dict[int, State] = {}
        previous: tuple[Block, int] | None = None
        for segment in network.trainable_segments():
            block, (begin, end) = segment.placed, segment.span
            state = states.setdefault(id(block), self._state(block))
            self._meet(state, segment)
            matrices: list[tuple[int, int, int]] = []
            if self._takes_matrices() and len(segment.shape) > 1 and segment.size:
                matrices = [(begin, segment.shape[0], segment.size // segment.shape[0])]
            # The padding between two segments is zero and stays so.
            if previous == (block, segment.index - 1):
                _, _, begin, _, before = ranges.pop()
                matrices = before + matrices
            ranges.append((block.store, state.slots, begin, end, matrices))
            previous = block, segment.index
        if not ranges:
            raise ValueError(f"{type(self).__name__}: the network has no trainable parameters")
        return Run(hyper, ranges, list(states.values()))

    def _state(self, block: Block) -> State:
        state = self._states.get(block)
        layout = self._slot_count(), self.ema is not None
        if state is None or state.layout != layout:
            state = self._states[block] = self._laid_out(block, layout, state)
        return state

    def _laid_out(self, block: Block, layout: tuple[int, bool], old: State | None) -> State:
        """New slots, with what the old ones hold of the same kind."""
        count, averages = layout
        slots = np.zeros((count + averages, block.store.size), block.dtype)
        slots[:count] = self._slot_start()
        state = State(slots, layout, old.steps if old else 0)
        if old and old.layout[0] == count:
            slots[:count] = old.slots[:count]
        return state

    def _meet(self, state: State, segment: Segment) -> None:
        """An average begins at the parameter before its first update."""
        if state.layout[1] and (state.steps == 0 or segment.index not in state.trained):
            begin, end = segment.span
            state.slots[-1, begin:end] = segment.placed.store.values[begin:end]
        state.trained.add(segment.index)

    def _averaged(self, segment: Segment) -> Array:
        state, (begin, end) = self._states.get(segment.placed), segment.span
        known = state is not None and state.layout[1] and state.steps and segment.index in state.trained
        source = state.slots[-1] if state is not None and known else segment.placed.store.values
        return np.array(source[begin:end]).reshape(segment.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_states": list(self._states.items())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _states=WeakKeyDictionary(state["_states"]))

    def _config(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        off = {"l1": 0, "clip_value": None, "clip_norm": None, "max_norm": None, "ema": None}
        shown = (
            f"{name}={value!r}"
            for name, value in self._config().items()
            if not (name in off and value == off[name])
        )
        return f"{type(self).__name__}({', '.join(shown)})"


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


def rate(lr: float | Schedule, what: str) -> float:
    """The checked rate. Of a schedule NaN: whoever runs the updates puts their own rates there."""
    return math.nan if isinstance(lr, Schedule) else not_negative(lr, what)


def checked_betas(betas: Any, what: str) -> dict[str, float]:
    """ "beta1" and "beta2" of a pair of decay rates in [0, 1)."""
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError):
        raise ValueError(f"{what} is {betas!r}; it must be a pair of numbers") from None
    return {"beta1": fraction(beta1, f"{what}[0]"), "beta2": fraction(beta2, f"{what}[1]")}
