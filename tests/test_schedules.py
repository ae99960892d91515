"""Schedules: formulas in plain Python, PyTorch's and optax's rates, runs in parts, bad input."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array, classification, classifier, weights

import gemmule as gm
from gemmule import schedules
from gemmule.schedules import (
    Constant,
    Cosine,
    Exponential,
    Lambda,
    MultiStep,
    OneCycle,
    Schedule,
    Step,
    Warmup,
)

PER_EPOCH, TOTAL = 10, 80  # eight epochs
# A few roundings each on numbers up to 1, and cosines within 1 ULP.
RTOL, ATOL = 1e-13, 1e-15


def halved(epoch: int) -> float:
    return 0.1 / 2**epoch


def cosine(p: float, lr: float = 0.1, final: float = 0.0) -> float:
    return final + (lr - final) * (1 + math.cos(math.pi * min(p, 1.0))) / 2


def one_cycle(t: int, total: int, pct: float, lr: float, first: float, least: float, linear: bool) -> float:
    top, last = pct * total - 1, total - 1
    start, end, p = (first, lr, t / top) if t <= top else (lr, least, (t - top) / (last - top))
    return start + (end - start) * p if linear else end + (start - end) * (1 + math.cos(math.pi * p)) / 2


# Each with the rate of update t, as its docstring has it.
FORMULAS: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "constant": (Constant(0.1), lambda t: 0.1),
    "step": (Step(0.1, 2), lambda t: 0.1 * 0.1 ** (t // 20)),
    "step-part": (Step(0.1, 0.7, 0.5), lambda t: 0.1 * 0.5 ** (t // 7)),
    "step-by": (Step(0.1, 3, 0.9, by="step"), lambda t: 0.1 * 0.9 ** (t // 3)),
    "multistep": (MultiStep(0.1, [1, 2.5, 6]), lambda t: 0.1 * 0.1 ** ((t >= 10) + (t >= 25) + (t >= 60))),
    "multistep-none": (MultiStep(0.1, []), lambda t: 0.1),
    "exponential": (Exponential(0.1, 0.5), lambda t: 0.1 * 0.5 ** (t / 10)),
    "exponential-by": (Exponential(0.1, 1.01, by="step"), lambda t: 0.1 * 1.01**t),
    "cosine": (Cosine(0.1), lambda t: cosine(t / 80)),
    "cosine-final": (Cosine(0.1, 3, 0.01), lambda t: cosine(t / 30, 0.1, 0.01)),
    "cosine-period": (Cosine(0.1, period=1.5), lambda t: cosine(t % 15 / 15)),
    "cosine-growth": (
        Cosine(0.1, period=1, growth=2),
        lambda t: cosine(
            t / 10 if t < 10 else (t - 10) / 20 if t < 30 else (t - 30) / 40 if t < 70 else (t - 70) / 80
        ),
    ),
    "onecycle": (OneCycle(0.1), lambda t: one_cycle(t, 80, 0.3, 0.1, 0.004, 4e-7, False)),
    "onecycle-linear": (
        OneCycle(0.1, pct_start=0.4, div_factor=10, final_div_factor=5, anneal="linear"),
        lambda t: one_cycle(t, 80, 0.4, 0.1, 0.01, 0.002, True),
    ),
    "onecycle-short": (OneCycle(0.1, 2), lambda t: one_cycle(min(t, 19), 20, 0.3, 0.1, 0.004, 4e-7, False)),
    "warmup": (Warmup(0.1, 1), lambda t: 0.1 * min(t / 10, 1)),
    "warmup-start": (Warmup(0.1, 5, start=0.2, by="step"), lambda t: 0.1 * min(0.2 + 0.8 * t / 5, 1)),
    "warmup-cosine": (Warmup(Cosine(0.1), 2), lambda t: 0.1 * t / 20 if t < 20 else cosine((t - 20) / 60)),
    "warmup-step": (
        Warmup(Step(0.1, 2), 0.5),
        lambda t: 0.1 * t / 5 if t < 5 else 0.1 * 0.1 ** ((t - 5) // 20),
    ),
    "lambda": (Lambda(halved), lambda t: 0.1 / 2 ** (t // 10)),
    "lambda-by": (Lambda(lambda t: 1 / (1 + t), by="step"), lambda t: 1 / (1 + t)),
}


@pytest.fixture(params=FORMULAS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_formula(name: str) -> None:
    schedule, rate = FORMULAS[name]
    rates = schedule.rates(0, TOTAL, PER_EPOCH, TOTAL)
    assert rates.dtype == np.float64 and rates.shape == (TOTAL,)
    np.testing.assert_allclose(rates, [rate(t) for t in range(TOTAL)], rtol=RTOL, atol=ATOL)


def test_a_run_in_parts_has_the_bits_of_the_whole(name: str) -> None:
    """Of any length, at any place: vectors of the machine's width and their ends compute alike."""
    schedule, _ = FORMULAS[name]
    whole = schedule.rates(0, TOTAL, PER_EPOCH, TOTAL)
    for length in (1, 2, 3, 7, 8, 13):
        parts = [
            schedule.rates(first, min(length, TOTAL - first), PER_EPOCH, TOTAL)
            for first in range(0, TOTAL, length)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), length


def test_the_peak_is_the_largest_rate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, _ = FORMULAS[name]
    largest = schedule.rates(0, TOTAL, PER_EPOCH, TOTAL).max()
    assert schedule.peak(PER_EPOCH, TOTAL) == largest
    monkeypatch.setattr(schedules, "_CHUNK", 7)
    assert schedule.peak(PER_EPOCH, TOTAL) == largest


def test_config_repr_and_equality(name: str) -> None:
    schedule, _ = FORMULAS[name]
    config = schedule.config()
    assert json.loads(json.dumps(config)) == config
    assert config["schedule"] == type(schedule).__name__
    assert schedule == schedule and hash(schedule) == hash(schedule)
    others = [other for key, (other, _) in FORMULAS.items() if key != name]
    assert schedule not in others and config not in [other.config() for other in others]
    if not name.startswith("lambda"):
        again = eval(repr(schedule), vars(schedules))
        assert again == schedule and hash(again) == hash(schedule) and again.config() == config


def test_a_function_is_compared_by_what_it_is_and_stored_by_name() -> None:
    assert Lambda(halved) == Lambda(halved) != Lambda(halved, by="step")
    assert Lambda(halved).config() == {"schedule": "Lambda", "f": f"{__name__}.halved", "by": "epoch"}


def test_a_function_of_the_epoch_is_called_once_an_epoch() -> None:
    calls: list[int] = []
    Lambda(lambda epoch: calls.append(epoch) or 0.1).rates(15, 20, PER_EPOCH, TOTAL)
    assert calls == [1, 2, 3] and all(type(call) is int for call in calls)


def test_lengths_that_only_rounding_keeps_from_whole_ones() -> None:
    """0.7 * 10 is above 7 in float64; update 7 is the first of the second step all the same."""
    for every, per_epoch in [(0.7, 10), (1.1, 10), (0.1, 3750), (1 / 3, 300)]:
        first = round(every * per_epoch)
        rates = Step(1.0, every, 0.5).rates(0, first + 1, per_epoch, None)
        np.testing.assert_array_equal(rates, [1.0] * first + [0.5])


def test_the_shortest_runs() -> None:
    for schedule in (Cosine(0.1), OneCycle(0.1), OneCycle(0.1, pct_start=1), Warmup(Cosine(0.1), 3)):
        for total in (1, 2, 3):
            assert np.isfinite(schedule.rates(0, total, 1, total)).all(), (schedule, total)
    assert OneCycle(0.1, pct_start=0).rates(0, 4, 1, 4).max() < 0.1
    np.testing.assert_array_equal(OneCycle(0.1, pct_start=0.25).rates(0, 1, 4, 4), [0.1])
    np.testing.assert_array_equal(Warmup(0.1, 0.01).rates(0, 2, 4, 4), [0.1, 0.1])  # no whole update
    assert Cosine(0.1).rates(5, 0, 4, 8).shape == (0,)


# -- the peers' figures --------------------------------------------------------------------------------------


def torch_rates(
    make: Callable[[Any, Any], Any], lr: float, every: int = 1, count: int = TOTAL
) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for t in range(count):
        if t and t % every == 0:
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates


def sequential(s: Any, optimizer: Any) -> Any:
    parts = [s.LinearLR(optimizer, 0.25, total_iters=20), s.CosineAnnealingLR(optimizer, 60)]
    return s.SequentialLR(optimizer, parts, milestones=[20])


# PyTorch's scheduler, stepped after every update or, in the second kind, after every epoch of ten.
BY_STEP: dict[str, tuple[Schedule, Callable[[Any, Any], Any]]] = {
    "StepLR": (Step(0.1, 7, 0.5, by="step"), lambda s, o: s.StepLR(o, 7, 0.5)),
    "MultiStepLR": (MultiStep(0.1, [5, 33], by="step"), lambda s, o: s.MultiStepLR(o, [5, 33])),
    "ExponentialLR": (Exponential(0.1, 0.97, by="step"), lambda s, o: s.ExponentialLR(o, 0.97)),
    "CosineAnnealingLR": (Cosine(0.1, final=0.001), lambda s, o: s.CosineAnnealingLR(o, TOTAL, 0.001)),
    "CosineAnnealingWarmRestarts": (
        Cosine(0.1, period=9, growth=2, final=0.01, by="step"),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 9, 2, 0.01),
    ),
    "OneCycleLR": (OneCycle(0.1), lambda s, o: s.OneCycleLR(o, 0.1, TOTAL)),
    "OneCycleLR-linear": (
        OneCycle(0.1, 70, 0.45, 10, 100, "linear", by="step"),
        lambda s, o: s.OneCycleLR(
            o, 0.1, 70, pct_start=0.45, div_factor=10, final_div_factor=100, anneal_strategy="linear"
        ),
    ),
    "LinearLR": (Warmup(0.1, 12, 1 / 3, by="step"), lambda s, o: s.LinearLR(o, 1 / 3, total_iters=12)),
    "SequentialLR": (Warmup(Cosine(0.1), 2, 0.25), sequential),
    "LambdaLR": (
        Lambda(lambda t: 0.1 / (1 + t), by="step"),
        lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    ),
}
BY_EPOCH: dict[str, tuple[Schedule, Callable[[Any, Any], Any]]] = {
    "StepLR": (Step(0.1, 3, 0.5), lambda s, o: s.StepLR(o, 3, 0.5)),
    "MultiStepLR": (MultiStep(0.1, [2, 5]), lambda s, o: s.MultiStepLR(o, [2, 5])),
    "ExponentialLR": (Step(0.1, 1, 0.97), lambda s, o: s.ExponentialLR(o, 0.97)),
    "LambdaLR": (Lambda(halved), lambda s, o: s.LambdaLR(o, lambda epoch: 0.5**epoch)),
}


@pytest.mark.parametrize("peer", BY_STEP)
@pytest.mark.filterwarnings("ignore")
def test_pytorchs_rates_by_update(peer: str) -> None:
    """Some of PyTorch's are recurrences: 80 roundings instead of one."""
    schedule, make = BY_STEP[peer]
    length = 70 if peer == "OneCycleLR-linear" else TOTAL
    rates = schedule.rates(0, length, PER_EPOCH, TOTAL)
    np.testing.assert_allclose(rates, torch_rates(make, 0.1, count=length), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("peer", BY_EPOCH)
@pytest.mark.filterwarnings("ignore")
def test_pytorchs_rates_by_epoch(peer: str) -> None:
    schedule, make = BY_EPOCH[peer]
    rates = schedule.rates(0, TOTAL, PER_EPOCH, TOTAL)
    np.testing.assert_allclose(rates, torch_rates(make, 0.1, every=PER_EPOCH), rtol=1e-12, atol=1e-14)


def test_optaxs_rates() -> None:
    """optax computes in float32: 1e-6 of numbers up to 0.1."""
    optax = pytest.importorskip("optax")
    pairs = [
        (Cosine(0.1, final=0.01), optax.cosine_decay_schedule(0.1, TOTAL, alpha=0.1)),
        (Warmup(Cosine(0.1), 2), optax.warmup_cosine_decay_schedule(0.0, 0.1, 20, TOTAL)),
        (Exponential(0.1, 0.9), optax.exponential_decay(0.1, PER_EPOCH, 0.9)),
        (Step(0.1, 1, 0.9), optax.exponential_decay(0.1, PER_EPOCH, 0.9, staircase=True)),
        (MultiStep(0.1, [2, 5]), optax.piecewise_constant_schedule(0.1, {20: 0.1, 50: 0.1})),
    ]
    for schedule, peer in pairs:
        want = [float(peer(t)) for t in range(TOTAL)]
        got = schedule.rates(0, TOTAL, PER_EPOCH, TOTAL)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-7, err_msg=repr(schedule))


# -- in a loop by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [gm.SGD, gm.Adam, gm.AdamW])
def test_a_loop_by_hand_takes_the_rate_of_its_update(optimizer: Any) -> None:
    x, y = classification()
    schedule = Warmup(Cosine(0.1, 6, by="step"), 3, by="step")
    nets = [classifier(), classifier()]
    scheduled, plain = optimizer(schedule), optimizer(0.0)
    for t in range(12):
        plain.lr = float(schedule.rates(t, 1)[0])
        for net, opt in zip(nets, (scheduled, plain), strict=True):
            _, dz = gm.losses.cross_entropy(net.forward(x, training=True), y)
            net.zero_grad()
            net.backward(dz)
            opt.step(net)
    assert scheduled.t == 12 and scheduled.lr is schedule
    assert weights(nets[0]) == weights(nets[1])


@pytest.mark.parametrize("schedule", [Cosine(0.1), OneCycle(0.1), Warmup(Cosine(0.1), 3, by="step")])
def test_by_hand_the_length_of_the_run_is_not_known(schedule: Schedule) -> None:
    net = classifier()
    before = weights(net)
    optimizer = gm.SGD(schedule)
    with pytest.raises(ValueError, match="depends on the length of the run, which is only known inside fit"):
        optimizer.step(net)
    assert weights(net) == before and optimizer.t == 0


@pytest.mark.parametrize("schedule", [Step(0.1, 3), Exponential(0.1, 0.9), Cosine(0.1, 3), Warmup(0.1, 1)])
def test_by_hand_epochs_are_not_known(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"counts in epochs, .*give by='step'"):
        gm.SGD(schedule).step(classifier())


# -- one's own, and bad arguments ----------------------------------------------------------------------------


class Triangle(Schedule):
    def __init__(self, lr: float, half: int) -> None:
        self.lr, self.half = lr, half

    def at(self, t: Array, span: schedules.Span) -> Array:
        return self.lr * np.abs((t - self.half) % (2 * self.half) - self.half) / self.half


def test_a_schedule_of_ones_own() -> None:
    schedule = Triangle(0.1, 4)
    np.testing.assert_allclose(schedule.rates(0, 9), 0.025 * np.array([0, 1, 2, 3, 4, 3, 2, 1, 0]))
    assert repr(schedule) == "Triangle(lr=0.1, half=4)"
    assert schedule == Triangle(0.1, 4) != Triangle(0.1, 5)
    assert schedule.config() == {"schedule": "Triangle", "lr": 0.1, "half": 4}
    assert schedules.resolve(schedule) is schedule
    assert Warmup(schedule, 2).after is schedule
    with pytest.raises(NotImplementedError, match="Schedule must define at"):
        Schedule().rates(0, 1)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Constant(-1), ValueError, "Constant: lr is -1; it must be finite and not negative"),
    (lambda: Constant("x"), TypeError, "Constant: lr must be a number, not 'x'"),
    (lambda: Constant(math.nan), ValueError, "Constant: lr is nan"),
    (lambda: Step(0.1, 0), ValueError, "Step: every is 0; it must be finite and above 0"),
    (lambda: Step(0.1, 1, -0.1), ValueError, "Step: gamma is -0.1"),
    (lambda: Step(0.1, 1, by="batch"), ValueError, "Step: by is 'batch'; it must be 'epoch' or 'step'"),
    (lambda: MultiStep(0.1, 3), TypeError, "milestones must be a list of numbers, not 3"),
    (lambda: MultiStep(0.1, [3, 3]), ValueError, r"milestones are \[3.0, 3.0\]; each must be above the last"),
    (lambda: MultiStep(0.1, [0]), ValueError, r"milestones\[0\] is 0"),
    (lambda: Exponential(0.1, 0), ValueError, "Exponential: gamma is 0"),
    (lambda: Cosine(0.1, -1), ValueError, "Cosine: duration is -1"),
    (lambda: Cosine(0.1, 1, period=1), ValueError, "duration or period, not both"),
    (lambda: Cosine(0.1, growth=2), ValueError, "give period too"),
    (lambda: Cosine(0.1, period=1, growth=0.5), ValueError, "growth is 0.5; it must be at least 1"),
    (lambda: OneCycle(0.1, pct_start=1.5), ValueError, "pct_start is 1.5; it must be from 0 to 1"),
    (lambda: OneCycle(0.1, div_factor=0), ValueError, "div_factor is 0"),
    (lambda: OneCycle(0.1, anneal="sin"), ValueError, "unknown anneal 'sin'; known: cos, linear"),
    (
        lambda: Warmup("x", 1),
        TypeError,
        "Warmup: after must be a number or one of gemmule.schedules, not 'x'",
    ),
    (lambda: Warmup(0.1, 1, start=2), ValueError, "start is 2; it is a fraction"),
    (lambda: Lambda(0.1), TypeError, "f must be a function of a number, not 0.1"),
    (lambda: schedules.resolve(None), TypeError, "lr must be a number or one of gemmule.schedules, not None"),
    (lambda: schedules.resolve(-1), ValueError, "lr is -1"),
    (lambda: schedules.resolve(True), TypeError, "lr must be a number"),
    (lambda: gm.SGD("fast"), TypeError, "SGD: lr must be a number"),
    (lambda: gm.Adam(-1), ValueError, "Adam: lr is -1"),
    (lambda: Constant(1).rates(-1, 1), ValueError, "first is -1 and count 1"),
    (lambda: Constant(1).rates(0, 1, 0, 1), ValueError, "per_epoch is 0 and total 1"),
    (
        lambda: Lambda(lambda e: -1.0).rates(12, 1, 4, 20),
        ValueError,
        r"rate of update 12 is -1\.0; it must be",
    ),
    (
        lambda: Lambda(lambda e: "a").rates(0, 1, 4, 20),
        TypeError,
        r"what <lambda>\(0\) returns must be a number",
    ),
    (lambda: Exponential(1, 9, by="step").rates(0, 999), ValueError, "rate of update 324 is inf"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
