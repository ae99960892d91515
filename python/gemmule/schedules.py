"""Learning rates that change while a network trains: `gm.Adam(gm.schedules.Cosine(1e-3))`.

t counts updates, from 0 at the start of a fit. Durations are in epochs, fractions allowed, and with by="step"
in updates. Rates change with every update unless said otherwise. They are PyTorch's at the same update, where
it has a counterpart.

    Constant(lr)                lr
    Step(lr, every, gamma)      lr gamma^floor(t / every)
    MultiStep(lr, milestones)   lr gamma^(milestones up to t)
    Exponential(lr, gamma)      lr gamma^t, t in epochs
    Cosine(lr)                  from lr down to `final` along half a cosine, once or in warm restarts
    OneCycle(lr)                up to lr and down to nearly nothing
    Warmup(after, duration)     a straight line up to the first rate of `after`, then `after`
    Lambda(f)                   f(epoch), or f(t) with by="step"
"""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, not_negative, positive, real_number, unknown_name

_CHUNK = 1 << 16  # rates that `peak` holds at once


class Span(NamedTuple):
    """The updates of an epoch and of the whole run; None where that is not known."""

    per_epoch: int | None
    total: int | None


class Schedule:
    """A learning rate for every update.

    A schedule of your own defines `at`, and keeps its arguments in attributes without an underscore, which
    `config` and `repr` show; `Lambda` takes a function."""

    def rates(self, first: int, count: int, per_epoch: int | None = None, total: int | None = None) -> Array:
        """The rates (count,), float64, of updates first, ..., first + count - 1 of a run.

        per_epoch, total: updates of an epoch and of the run. ValueError where one is not given and the
        schedule depends on it, and for a rate that is negative or not finite."""
        if first < 0 or count < 0:
            raise ValueError(f"rates: first is {first} and count {count}; neither may be negative")
        if any(length is not None and length < 1 for length in (per_epoch, total)):
            raise ValueError(f"rates: per_epoch is {per_epoch} and total {total}; both are at least 1")
        t = np.arange(first, first + count, dtype=np.float64)
        with np.errstate(over="ignore"):
            rates = np.asarray(self.at(t, Span(per_epoch, total)), dtype=np.float64)
        if rates.shape != t.shape:
            raise ValueError(f"{self!r} gives rates of shape {rates.shape} for {count} updates")
        bad = ~((rates >= 0) & np.isfinite(rates))
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"{self!r}: the rate of update {first + i} is {rates[i]}; it must be finite and not negative"
            )
        return rates

    def peak(self, per_epoch: int | None = None, total: int = 1) -> float:
        """The largest rate of a run of `total` updates."""
        starts = range(0, total, _CHUNK)
        return max(
            float(self.rates(start, min(_CHUNK, total - start), per_epoch, total).max()) for start in starts
        )

    def at(self, t: Array, span: Span) -> Array:
        """The rates at the updates t (n,), float64 whole numbers. Each must depend on its own t alone."""
        raise NotImplementedError(f"{type(self).__name__} must define at(t, span)")

    def config(self) -> dict[str, Any]:
        """The name of the schedule and its arguments, as JSON holds them."""
        return {"schedule": type(self).__name__, **_arguments(self)}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _arguments(other) == _arguments(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in _arguments(self).items())
        return f"{type(self).__name__}({arguments})"

    def _updates(self, duration: float, by: str, span: Span) -> float:
        """`duration` in updates, a whole number where it is one but for rounding."""
        if by == "step":
            return duration
        if span.per_epoch is None:
            raise ValueError(
                f"{self!r} counts in epochs, whose length is only known inside fit; give by='step'"
            )
        updates = duration * span.per_epoch
        whole = float(round(updates))
        return whole if math.isclose(updates, whole, rel_tol=1e-9) else updates

    def _length(self, duration: float | None, by: str, span: Span) -> float:
        """The same; None is the whole run."""
        if duration is not None:
            return self._updates(duration, by, span)
        if span.total is None:
            raise ValueError(
                f"{self!r} depends on the length of the run, which is only known inside fit; "
                "give a duration and by='step'"
            )
        return float(span.total)


class Constant(Schedule):
    """The same rate always."""

    def __init__(self, lr: float) -> None:
        self.lr = not_negative(lr, "Constant: lr")

    def at(self, t: Array, span: Span) -> Array:
        return np.full_like(t, self.lr)


class Step(Schedule):
    """lr gamma^floor(t / every): the rate is multiplied by gamma every so many epochs. PyTorch's StepLR."""

    def __init__(self, lr: float, every: float, gamma: float = 0.1, by: str = "epoch") -> None:
        self.lr = not_negative(lr, "Step: lr")
        self.every = positive(every, "Step: every")
        self.gamma = positive(gamma, "Step: gamma")
        self.by = _unit(by, "Step")

    def at(self, t: Array, span: Span) -> Array:
        return _decayed(self.lr, self.gamma, np.floor(t / self._updates(self.every, self.by, span)))


class MultiStep(Schedule):
    """lr gamma^n, n the milestones reached: the rate is multiplied by gamma at each. PyTorch's MultiStepLR.

    milestones: rising numbers of epochs."""

    def __init__(self, lr: float, milestones: Sequence[float], gamma: float = 0.1, by: str = "epoch") -> None:
        self.lr = not_negative(lr, "MultiStep: lr")
        if isinstance(milestones, str) or not isinstance(milestones, Sequence | np.ndarray):
            raise TypeError(f"MultiStep: milestones must be a list of numbers, not {milestones!r}")
        self.milestones = [
            positive(milestone, f"MultiStep: milestones[{i}]") for i, milestone in enumerate(milestones)
        ]
        if any(b <= a for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError(f"MultiStep: milestones are {self.milestones}; each must be above the last")
        self.gamma = positive(gamma, "MultiStep: gamma")
        self.by = _unit(by, "MultiStep")

    def at(self, t: Array, span: Span) -> Array:
        reached = [self._updates(milestone, self.by, span) for milestone in self.milestones]
        return _decayed(self.lr, self.gamma, np.searchsorted(reached, t, side="right").astype(np.float64))


class Exponential(Schedule):
    """lr gamma^(t in epochs), a little less at each update; PyTorch's ExponentialLR where an epoch starts.

    `Step(lr, 1, gamma)` changes once an epoch instead."""

    def __init__(self, lr: float, gamma: float, by: str = "epoch") -> None:
        self.lr = not_negative(lr, "Exponential: lr")
        self.gamma = positive(gamma, "Exponential: gamma")
        self.by = _unit(by, "Exponential")

    def at(self, t: Array, span: Span) -> Array:
        return _decayed(self.lr, self.gamma, t / self._updates(1.0, self.by, span))


class Cosine(Schedule):
    """final + (lr - final) (1 + cos(pi p)) / 2, with p from 0 to 1. Loshchilov and Hutter 2017.

    duration: of the way down, by default the whole run; `final` after it. PyTorch's CosineAnnealingLR, which
        rises again after T_max.
    period: down again and again instead, in periods of which each is `growth` times as long as the last.
        PyTorch's CosineAnnealingWarmRestarts."""

    def __init__(
        self,
        lr: float,
        duration: float | None = None,
        final: float = 0.0,
        *,
        period: float | None = None,
        growth: float = 1.0,
        by: str = "epoch",
    ) -> None:
        if duration is not None and period is not None:
            raise ValueError("Cosine: give duration or period, not both")
        self.lr = not_negative(lr, "Cosine: lr")
        self.duration = None if duration is None else positive(duration, "Cosine: duration")
        self.final = not_negative(final, "Cosine: final")
        self.period = None if period is None else positive(period, "Cosine: period")
        self.growth = positive(growth, "Cosine: growth")
        if self.growth < 1:
            raise ValueError(f"Cosine: growth is {growth}; it must be at least 1")
        if self.period is None and self.growth != 1:
            raise ValueError("Cosine: growth is that of a period; give period too")
        self.by = _unit(by, "Cosine")

    def at(self, t: Array, span: Span) -> Array:
        if self.period is None:
            p = np.minimum(t / self._length(self.duration, self.by, span), 1.0)
        else:
            p = self._phase(t, self._updates(self.period, self.by, span))
        return np.asarray(self.final + (self.lr - self.final) * (1 + np.cos(np.pi * p)) / 2)

    def _phase(self, t: Array, period: float) -> Array:
        """Where each t stands in its period, from 0 to 1."""
        if self.growth == 1:
            return np.asarray(np.fmod(t, period) / period)
        starts, lengths = [0.0], [period]
        while starts[-1] + lengths[-1] <= t.max(initial=0.0):
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.growth)
        at = np.searchsorted(starts, t, side="right") - 1
        return np.asarray((t - np.take(starts, at)) / np.take(lengths, at))


class OneCycle(Schedule):
    """Up from lr / div_factor to lr during pct_start of the duration, then down to
    lr / div_factor / final_div_factor. Smith and Topin 2019, as PyTorch's OneCycleLR has it, which cycles the
    momentum too.

    duration: by default the whole run; the last rate after it. anneal: "cos" or "linear"."""

    def __init__(
        self,
        lr: float,
        duration: float | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        anneal: str = "cos",
        by: str = "epoch",
    ) -> None:
        self.lr = not_negative(lr, "OneCycle: lr")
        self.duration = None if duration is None else positive(duration, "OneCycle: duration")
        self.pct_start = real_number(pct_start, "OneCycle: pct_start")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"OneCycle: pct_start is {pct_start}; it must be from 0 to 1")
        self.div_factor = positive(div_factor, "OneCycle: div_factor")
        self.final_div_factor = positive(final_div_factor, "OneCycle: final_div_factor")
        if anneal not in ("cos", "linear"):
            raise unknown_name("anneal", anneal, ("cos", "linear"))
        self.anneal = anneal
        self.by = _unit(by, "OneCycle")

    def at(self, t: Array, span: Span) -> Array:
        last = max(round(self._length(self.duration, self.by, span)), 1) - 1
        top = self.pct_start * (last + 1) - 1  # before the first update where the way up has none
        first, least = self.lr / self.div_factor, self.lr / self.div_factor / self.final_div_factor
        up = t / top if top > 0 else np.ones_like(t)
        down = np.minimum((t - top) / (last - top), 1.0) if last > top else np.zeros_like(t)
        return np.where(t <= top, self._between(first, self.lr, up), self._between(self.lr, least, down))

    def _between(self, start: float, end: float, p: Array) -> Array:
        if self.anneal == "linear":
            return (end - start) * p + start
        return end + (start - end) / 2 * (1 + np.cos(np.pi * p))


class Warmup(Schedule):
    """A straight line from `start` times the first rate of `after`, a schedule or a rate, up to that rate;
    then `after`, as if the run began there. Goyal et al. 2017.

    The duration is rounded to whole updates, which `after` does not count: its milestones come later by as
    much, and what lasts the whole run lasts what is left of it. As PyTorch's LinearLR (start_factor = start)
    before `after` in a SequentialLR."""

    def __init__(
        self, after: "float | Schedule", duration: float, start: float = 0.0, by: str = "epoch"
    ) -> None:
        self.after = resolve(after, "Warmup: after")
        self.duration = positive(duration, "Warmup: duration")
        self.start = real_number(start, "Warmup: start")
        if not 0 <= self.start <= 1:
            raise ValueError(f"Warmup: start is {start}; it is a fraction of the rate, from 0 to 1")
        self.by = _unit(by, "Warmup")

    def at(self, t: Array, span: Span) -> Array:
        length = round(self._updates(self.duration, self.by, span))
        rest = Span(span.per_epoch, None if span.total is None else max(span.total - length, 1))
        rates = self.after.at(np.maximum(t - length, 0.0), rest)
        if not length:
            return rates
        first = self.after.at(np.zeros(1), rest)
        return np.where(t < length, first * (self.start + (1 - self.start) * t / length), rates)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "after": self.after.config()}


class Lambda(Schedule):
    """f(epoch), the rate during an epoch from the number of epochs before it: 0, 1, ... With by="step", f(t).

    f takes an int and gives the rate itself, always the same one for a number: it may be asked again."""

    def __init__(self, f: Callable[[int], float], by: str = "epoch") -> None:
        if not callable(f):
            raise TypeError(f"Lambda: f must be a function of a number, not {f!r}")
        self.f = f
        self.by = _unit(by, "Lambda")

    def at(self, t: Array, span: Span) -> Array:
        numbers, where = np.unique(np.floor(t / self._updates(1.0, self.by, span)), return_inverse=True)
        name = getattr(self.f, "__name__", repr(self.f))
        rates = [real_number(self.f(int(n)), f"Lambda: what {name}({int(n)}) returns") for n in numbers]
        return np.array(rates, dtype=np.float64)[where]

    def config(self) -> dict[str, Any]:
        """As of any schedule; the function by its module and name."""
        name = getattr(self.f, "__qualname__", type(self.f).__qualname__)
        return {**super().config(), "f": f"{getattr(self.f, '__module__', None)}.{name}"}


def resolve(lr: float | Schedule, what: str = "lr") -> Schedule:
    """A schedule from a rate; TypeError and ValueError name `what`."""
    if isinstance(lr, Schedule):
        return lr
    if isinstance(lr, bool) or not isinstance(lr, numbers.Real):
        raise TypeError(f"{what} must be a number or one of gemmule.schedules, not {lr!r}")
    return Constant(not_negative(lr, what))


def _arguments(schedule: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(schedule).items() if not name.startswith("_")}


def _decayed(lr: float, gamma: float, times: Array) -> Array:
    return np.asarray(lr * np.power(gamma, times))


def _unit(by: str, what: str) -> str:
    if by not in ("epoch", "step"):
        raise ValueError(f"{what}: by is {by!r}; it must be 'epoch' or 'step'")
    return by
