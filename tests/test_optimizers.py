"""Each optimizer and each thing it may wear against the formula, and what holds for all of them: the same
bits for any number of threads, runs in parts, steps that commit whole."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import Array, classification, classifier, gradients, regression, regressor, weights
from optimizer_reference import Dressed
from optimizers import CASES, EXTRAS

import gemmule as gm

STEPS = 50

pytestmark = pytest.mark.usefixtures("copying")


def follow(
    net: gm.Network, optimizer: gm.optim.Optimizer, formula: Dressed, steps: int = STEPS
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The network's parameters and the formula's after `steps` from the same gradients, some of them 0."""
    rng = np.random.default_rng(1)
    parameters = dict(net.named_parameters())
    want = {name: p.astype(float) for name, p in parameters.items()}
    for _ in range(steps):
        for p in parameters.values():
            p.grad[...] = rng.standard_normal(p.shape)
            p.grad.flat[0] = 0
        want = formula.step(want, {name: p.grad.astype(float) for name, p in parameters.items()})
        optimizer.step(net)
    return {name: np.array(p) for name, p in parameters.items()}, want


def tolerance(name: str, dtype: str) -> float:
    """A step rounds a few operations on weights and steps of order 1. Of Newton-Schulz a round multiplies
    what was rounded before it by at most its slope at 0, 3.4445, so five of them by 485; lr is 0.01, and the
    shape's factor below 2. Adagrad's first step and centered RMSprop's divide by little: 0.1 and, squared,
    0.01."""
    per_step = 0.02 * 485 * 16 if name.startswith("muon") else 64 if "centered" in name else 16
    return STEPS * per_step * float(np.finfo(dtype).eps)


def assert_follows(have: dict[str, Array], want: dict[str, Array], name: str, atol: float) -> None:
    """Within the tolerance. Lion goes by a sign: a sum that is zero but for rounding may have either, and its
    weight then ends two steps of 0.001 apart. Over 50 steps that may meet one weight in a hundred."""
    for label in want:
        error = np.abs(have[label] - want[label])
        if name == "lion":
            turned = error > atol
            assert np.count_nonzero(turned) <= 1 + error.size // 100, label
            assert error[turned].max(initial=0) <= 2 * 0.001 + atol, label
        else:
            assert error.max() <= atol, label


def small(dtype: str) -> gm.Network:
    """A tall, a wide and a single-row matrix, vectors that end inside a vector register."""
    return gm.Network([gm.Dense(7, 33), gm.Dense(33, 5), gm.Dense(5, 1)], dtype=dtype, rng=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_steps_equal_the_formula(isa: str, name: str, dtype: str) -> None:
    have, want = follow(small(dtype), CASES[name].make(), Dressed(CASES[name].rule))
    assert_follows(have, want, name, tolerance(name, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop centered momentum", "lion", "muon"])
def test_steps_with_extras_equal_the_formula(isa: str, name: str, extra: str, dtype: str) -> None:
    net, optimizer = small(dtype), CASES[name].make(**EXTRAS[extra])
    formula = Dressed(CASES[name].rule, **EXTRAS[extra])
    have, want = follow(net, optimizer, formula)
    atol = 2 * tolerance(name, dtype)
    assert_follows(have, want, name, atol)
    if "ema" in EXTRAS[extra]:
        assert_follows(optimizer.average(net), formula.average, name, atol)


@pytest.mark.parametrize("rule", [gm.Adam, gm.AdamW, gm.RMSprop, gm.Adagrad])
def test_without_eps_the_first_step_is_the_rate(isa: str, rule: Callable[..., gm.optim.Optimizer]) -> None:
    """Every element by the rate, RMSprop's by 1 / sqrt(1 - alpha) of it, ten times. Lanes beyond the end of a
    vector are 0 / 0, which must neither count nor be written."""
    net, optimizer = (
        small("float32"),
        rule(0.01, eps=0.0, **({"weight_decay": 0.0} if rule is gm.AdamW else {})),
    )
    before = net.state_dict()
    for _, p in net.named_parameters():
        p.grad[...] = np.random.default_rng(1).choice([-0.5, 3.0], p.shape)
    optimizer.step(net)
    rate = 0.1 if rule is gm.RMSprop else 0.01
    for name, p in net.named_parameters():
        np.testing.assert_allclose(
            p, before[name] - rate * np.sign(p.grad), atol=4 * np.finfo(np.float32).eps
        )


def test_a_weight_of_zero_has_no_l1() -> None:
    net = regressor()
    net[0].weight[...] = 0
    net.zero_grad()
    gm.SGD(0.1, l1=0.5).step(net)
    assert not net[0].weight.any()


def test_clipping_scales_all_gradients_together_and_leaves_grad() -> None:
    net, before = regressor(), regressor().state_dict()
    for _, p in net.named_parameters():
        p.grad[...] = 3
    norm = 3 * np.sqrt(sum(p.size for _, p in net.named_parameters()))
    gm.SGD(1.0, clip_norm=0.5).step(net)
    moved = np.concatenate([(p - before[name]).ravel() for name, p in net.named_parameters()])
    # The difference of weights of order 1 rounds by eps, the step itself by less.
    np.testing.assert_allclose(moved, -3 * 0.5 / norm, atol=2 * np.finfo(np.float32).eps)
    assert all((p.grad == 3).all() for _, p in net.named_parameters())


def test_max_norm_limits_the_rows_of_matrices_alone() -> None:
    net = regressor()
    net[0].bias[...] = 100
    net.zero_grad()
    norms = np.linalg.norm(net[0].weight, axis=1)
    gm.SGD(0.1, max_norm=0.5).step(net)
    after = np.linalg.norm(net[0].weight.astype(float), axis=1)
    np.testing.assert_allclose(after, np.minimum(norms, 0.5), rtol=1e-6)
    assert (net[0].bias == 100).all()


# -- threads, parts, the working copy ------------------------------------------------------------------------

Make = Callable[[], "gm.optim.Optimizer"]
EVERY: dict[str, Make] = {name: case.make for name, case in CASES.items()} | {
    f"{name} {extra}": lambda name=name, extra=extra: CASES[name].make(**EXTRAS[extra])  # type: ignore[misc]
    for name in ("nesterov", "adam", "muon")
    for extra in EXTRAS
}


@pytest.mark.parametrize("name", EVERY)
def test_training_is_bitwise_equal_for_any_number_of_threads(isa: str, name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((160, 90)).astype(np.float32), rng.integers(0, 10, 160)
    seen = set()
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net, optimizer = gm.Network.mlp([90, 256, 10], rng=0), EVERY[name]()
        net.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=2, batch_size=64)
        averages = [] if optimizer.ema is None else [a.tobytes() for a in optimizer.average(net).values()]
        seen.add(b"".join([*weights(net).values(), *averages]))
    gm.set_num_threads(None)
    assert len(seen) == 1


@pytest.mark.parametrize("batch_size", [8, 32])
@pytest.mark.parametrize("name", EVERY)
def test_a_run_in_parts_has_the_bits_of_the_whole(name: str, batch_size: int) -> None:
    x, y = classification()
    whole, parts, by_epoch = classifier(), classifier(), EVERY[name]()
    whole.fit(
        x, y, loss="cross_entropy", optimizer=EVERY[name](), epochs=6, batch_size=batch_size, shuffle=False
    )
    for epochs in (1, 3, 2):
        parts.fit(
            x,
            y,
            loss="cross_entropy",
            optimizer=by_epoch,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=False,
        )
    assert weights(whole) == weights(parts)


@pytest.mark.parametrize("name", EVERY)
def test_all_forms_train_alike(isa: str, force_training: Callable[[str], None], name: str) -> None:
    """All add the same float64 terms, perhaps in another order: some tens of steps of about 1e-16 each,
    times the growth of a difference through training and, for Muon, through Newton-Schulz, stay under 1e-10.
    Lion jumps where a sign does, which no sum of these data comes near."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((100, 20)), rng.standard_normal((100, 7))
    trained = []
    for form in ("stepped", "riding", "copied"):
        force_training(form)
        net, optimizer = gm.Network.mlp([20, 33, 7], activation="tanh", rng=1, dtype="float64"), EVERY[name]()
        net.fit(x, y, loss="mse", optimizer=optimizer, epochs=4, batch_size=32)
        averages = [] if optimizer.ema is None else list(optimizer.average(net).values())
        trained.append([*net.state_dict().values(), *averages, *(p.grad for _, p in net.named_parameters())])
    for one, *others in zip(*trained, strict=True):
        for other in others:
            np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_fit_is_the_loop_written_by_hand(name: str) -> None:
    x, y = classification()
    net, hand = classifier(dtype="float64"), classifier(dtype="float64")
    optimizer = EVERY[name]()
    net.fit(x, y, loss="cross_entropy", optimizer=EVERY[name](), epochs=3, batch_size=16, shuffle=False)
    for start in list(range(0, len(x), 16)) * 3:
        batch = slice(start, start + 16)
        _, dz = gm.losses.cross_entropy(hand.forward(x[batch], training=True), y[batch])
        hand.zero_grad()
        hand.backward(dz)
        optimizer.step(hand)
    for (label, p), (_, q) in zip(net.named_parameters(), hand.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-10, err_msg=label)


@pytest.mark.parametrize("name", EVERY)
def test_each_optimizer_learns(name: str) -> None:
    x, y = classification()
    net = classifier()
    history = net.fit(x, y, loss="cross_entropy", optimizer=EVERY[name](), epochs=60, batch_size=16)
    assert history["loss"][-1] < 0.8 * history["loss"][0]


# -- steps commit whole --------------------------------------------------------------------------------------


def state_of(optimizer: gm.optim.Optimizer) -> list[bytes]:
    """What a later step reads: all slots but the direction that Muon leaves in a matrix's second one."""
    kept = [
        np.delete(s.slots, 1, 0) if optimizer.rule == "muon" else s.slots for s in optimizer._states.values()
    ]
    return [slots.tobytes() for slots in kept]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", EVERY)
def test_a_bad_gradient_changes_nothing(isa: str, name: str, bad: float) -> None:
    net, optimizer = regressor(), EVERY[name]()
    for _, p in net.named_parameters():
        p.grad[...] = 0.1
    optimizer.step(net)
    before = weights(net), state_of(optimizer), optimizer.t
    net[1].bias.grad[3] = bad
    with pytest.raises(gm.DivergenceError, match="gradient"):
        optimizer.step(net)
    assert (weights(net), state_of(optimizer), optimizer.t) == before
    net[1].bias.grad[3] = 0
    optimizer.step(net)
    assert all(np.isfinite(p).all() for _, p in net.named_parameters())


@pytest.mark.parametrize("batch_size", [8, 32])
@pytest.mark.parametrize("name", EVERY)
def test_a_poisoned_sample_leaves_the_step_before(name: str, batch_size: int) -> None:
    x, y = regression()
    x[70, 2] = np.nan
    net, twin = regressor(), regressor()
    with pytest.raises(gm.DivergenceError, match=rf"epoch 1\b.*batch {70 // batch_size + 1}\b"):
        net.fit(x, y, loss="mse", optimizer=EVERY[name](), epochs=3, batch_size=batch_size, shuffle=False)
    whole = 70 // batch_size * batch_size
    twin.fit(
        x[:whole],
        y[:whole],
        loss="mse",
        optimizer=EVERY[name](),
        epochs=1,
        batch_size=batch_size,
        shuffle=False,
    )
    assert weights(net) == weights(twin)


OVERFLOWING: dict[str, Make] = {
    "adam, eps 0": lambda: gm.Adam(eps=0),
    "rmsprop, eps 0": lambda: gm.RMSprop(eps=0),
    "rmsprop centered, eps 0": lambda: gm.RMSprop(eps=0, centered=True, momentum=0.9),
    "adagrad, eps 0": lambda: gm.Adagrad(eps=0),
    "muon, eps 0": lambda: gm.Muon(eps=0),
    "muon, its vectors' eps 0": lambda: gm.Muon(adamw_eps=0),
    "lion, lr": lambda: gm.Lion(1e39, weight_decay=1.0),
    "muon, lr": lambda: gm.Muon(1e39, weight_decay=1.0),
    "l1": lambda: gm.SGD(1e20, l1=1e20),
    "muon, coefficients": lambda: gm.Muon(ns_coefficients=(1e30, 0.0, 0.0)),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_an_update_that_overflows_changes_nothing(isa: str, name: str) -> None:
    """0 / 0 where eps is 0 and a gradient is, products beyond float32: found before anything is written."""
    net, optimizer = regressor(), OVERFLOWING[name]()
    net.zero_grad()
    if "coefficients" in name:
        net[0].weight.grad[...] = 1
    before = weights(net)
    with pytest.raises(gm.DivergenceError, match="update"):
        optimizer.step(net)
    assert weights(net) == before and optimizer.t == 0


@pytest.mark.parametrize("make", [lambda: gm.SGD(1e-200, clip_norm=1.0), lambda: gm.Muon(1e-200)])
def test_norms_beyond_float64_are_refused(make: Make) -> None:
    net = gm.Network.mlp([5, 16, 2], rng=1, dtype="float64")
    for _, p in net.named_parameters():
        p.grad[...] = 1e200
    before = weights(net)
    with pytest.raises(gm.DivergenceError, match=r"norm|update"):
        make().step(net)
    assert weights(net) == before


@pytest.mark.parametrize("make", [lambda: gm.Adam(eps=1e-38), lambda: gm.RMSprop(eps=1e-38, momentum=0.9)])
def test_settings_that_bound_nothing_are_tried_on_copies(make: Make) -> None:
    """An eps so small that a quotient may leave float32: no magnitude is safe, and a run stays whole."""
    x, y = regression()
    x[:, 1] = 0  # gradients of exactly 0 too
    net, hand, optimizer = regressor(), regressor(), make()
    net.fit(x, y, loss="mse", optimizer=make(), epochs=3, batch_size=32, shuffle=False)
    for start in list(range(0, 96, 32)) * 3:
        rows = slice(start, start + 32)
        hand.fit(x[rows], y[rows], loss="mse", optimizer=optimizer, epochs=1, batch_size=32, shuffle=False)
    assert weights(net) == weights(hand) and gradients(net) == gradients(hand)


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: gm.RMSprop(alpha=1.0), ValueError, "RMSprop: alpha"),
        (lambda: gm.RMSprop(momentum=-0.1), ValueError, "RMSprop: momentum"),
        (lambda: gm.RMSprop(eps=-1), ValueError, "RMSprop: eps"),
        (lambda: gm.Adagrad(lr_decay=-1), ValueError, "Adagrad: lr_decay"),
        (lambda: gm.Adagrad(initial_accumulator_value=-1), ValueError, "Adagrad: initial_accumulator_value"),
        (lambda: gm.Lion(betas=(0.9, 1.0)), ValueError, r"Lion: betas\[1\]"),
        (lambda: gm.Lion(betas=0.9), ValueError, "Lion: betas"),  # type: ignore[arg-type]
        (lambda: gm.Muon(momentum=1.0), ValueError, "Muon: momentum"),
        (lambda: gm.Muon(ns_steps=0), ValueError, "Muon: ns_steps"),
        (lambda: gm.Muon(ns_steps=2.5), ValueError, "Muon: ns_steps"),  # type: ignore[arg-type]
        (lambda: gm.Muon(ns_steps=float("nan")), ValueError, "Muon: ns_steps"),  # type: ignore[arg-type]
        (lambda: gm.Muon(ns_coefficients=(1.0, 2.0)), ValueError, "ns_coefficients"),  # type: ignore[arg-type]
        (lambda: gm.Muon(ns_coefficients=(1, np.inf, 2)), ValueError, "ns_coefficients"),
        (lambda: gm.Muon(adjust_lr_fn="rms"), ValueError, "adjust_lr_fn.*match_rms_adamw"),
        (lambda: gm.Muon(adamw_ratio=-1), ValueError, "Muon: adamw_ratio"),
        (lambda: gm.SGD(l1=-1), ValueError, "SGD: l1"),
        (lambda: gm.SGD(l1=None), TypeError, "SGD: l1"),  # type: ignore[arg-type]
        (lambda: gm.Adam(clip_value=0), ValueError, "Adam: clip_value"),
        (lambda: gm.AdamW(clip_norm=float("nan")), ValueError, "AdamW: clip_norm"),
        (lambda: gm.Lion(clip_norm="1"), TypeError, "Lion: clip_norm"),  # type: ignore[arg-type]
        (lambda: gm.Muon(max_norm=-2), ValueError, "Muon: max_norm"),
        (lambda: gm.Adagrad(ema=1.0), ValueError, "Adagrad: ema"),
        (lambda: gm.Adagrad(ema=0.0), ValueError, "Adagrad: ema"),
        (lambda: gm.SGD(clip=1.0), TypeError, "clip"),  # type: ignore[call-arg]
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        make()


def test_a_setting_changed_to_a_bad_one_is_found_at_the_next_step() -> None:
    net, optimizer = regressor(), gm.Adam()
    optimizer.clip_norm = -1.0
    before = weights(net)
    with pytest.raises(ValueError, match="clip_norm"):
        optimizer.step(net)
    with pytest.raises(ValueError, match="clip_norm"):
        net.fit(*regression(), loss="mse", optimizer=optimizer)
    assert weights(net) == before


def test_names_and_what_repr_shows() -> None:
    for name in ("rmsprop", "adagrad", "lion", "muon"):
        assert gm.optim.resolve(name).rule == name  # type: ignore[union-attr]
    assert "ema" not in repr(gm.Lion()) and "ema=0.9" in repr(gm.Lion(ema=0.9))


def test_ranges_that_do_not_fit_are_refused() -> None:
    store, slots = gm._core.Store("float32", [12]), np.zeros((3, 16), np.float32)
    hyper = {"lr": 0.1, "max_norm": 1.0}
    for matrix in [(0, 3, 5), (-1, 3, 4), (0, 0, 4), (0, 2**40, 2**40)]:
        with pytest.raises(ValueError, match=r"matrix|int64|overflow"):
            gm._core.update("sgd", hyper, 0, [(store, slots, 0, 12, [matrix])])
    with pytest.raises(ValueError, match="overlaps"):
        gm._core.update("sgd", hyper, 0, [(store, slots, 0, 12, [(0, 2, 4), (7, 1, 2)])])
    with pytest.raises(ValueError, match="slots"):
        gm._core.update("rmsprop", {"momentum": 0.5, "ema": 0.5}, 0, [(store, slots[:2], 0, 12, [])])
    with pytest.raises(ValueError, match="unknown setting 'rho'"):
        gm._core.update("sgd", {"rho": 0.1}, 0, [(store, slots, 0, 12, [])])
