"""Every op against the float64 reference: both types, every ISA, odd sizes, any strides, special values."""

import math
from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray

import gemmule as gm
from gemmule import _core

Array = NDArray[Any]
DTYPES = [np.float32, np.float64]
# About every vector width (4, 8, 16 lanes), with and without a tail.
SIZES = [0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 65, 1000]
ROWS = [(1, 1), (1, 7), (3, 16), (5, 17), (2, 65), (7, 100), (1, 1000)]
SLOPED = {"leaky_relu": 0.2, "elu": 0.7, "sigmoid": 2.5}


def ulps(got: Array, want: Array) -> float:
    """The largest distance in units in the last place of the type of `got`; want is wider."""
    return float((abs(got - want) / np.spacing(abs(want).astype(got.dtype))).max())


def activation(name: str, z: Array, slope: float, out: Array | None = None) -> Array:
    return gm.ops.activation(z, name, slope if name in SLOPED else None, out=out)


def activation_backward(name: str, dh: Array, z: Array, slope: float) -> Array:
    return gm.ops.activation_backward(dh, z, name, slope if name in SLOPED else None)


def strided(x: Array) -> list[Array]:
    """The same values, one after another in memory, and not."""
    spread = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)[..., ::2]
    backwards = np.empty_like(x)[..., ::-1]
    spread[...] = backwards[...] = x
    return [x, spread, backwards, np.asfortranarray(x)]


# -- accuracy in units in the last place ---------------------------------------------------------------------


def sweep(dtype: type, low: float, high: float) -> Array:
    """Uniform over the range, dense about zero over many magnitudes, and the ends."""
    rng = np.random.default_rng(0)
    small = np.exp(rng.uniform(math.log(1e-30), math.log(min(-low, high)), 20_000)) * rng.choice(
        [-1, 1], 20_000
    )
    return np.concatenate([rng.uniform(low, high, 40_000), small, [low, high, 0.0]]).astype(dtype)


needs_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps, reason="longdouble is no wider than float64 here"
)
WIDER = [(np.float32, np.float64), pytest.param(np.float64, np.longdouble, marks=needs_longdouble)]


@pytest.mark.parametrize(("dtype", "wide"), WIDER)
def test_exp_within_2_ulp(isa: str, dtype: type, wide: type) -> None:
    info = np.finfo(dtype)
    x = sweep(dtype, float(np.log(info.tiny)) + 1e-3, float(np.log(info.max)) - 1e-3)
    out = np.empty_like(x)
    _core.exp(x, out)
    assert ulps(out, np.exp(x.astype(wide))) <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_at_and_beyond_its_range(isa: str, dtype: type) -> None:
    """Subnormal results are kept, to one of their own (coarse) units more than elsewhere."""
    info = np.finfo(dtype)
    lowest = math.log(float(info.tiny)) - math.log(2) * info.nmant
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, lowest - 2], dtype)
    out = np.empty_like(x)
    _core.exp(x, out)
    np.testing.assert_array_equal(out, [1, 1, np.inf, 0, np.nan, np.inf, 0, 0])
    x = np.linspace(lowest + 1, math.log(float(info.tiny)), 999).astype(dtype)
    out = np.empty_like(x)
    _core.exp(x, out)
    assert ulps(out, np.exp(x.astype(np.longdouble))) <= 3


@pytest.mark.parametrize(("dtype", "wide"), WIDER)
def test_tanh_within_4_ulp(isa: str, dtype: type, wide: type) -> None:
    x = sweep(dtype, -25, 25)
    assert ulps(gm.ops.tanh(x), np.tanh(x.astype(wide))) <= 4
    np.testing.assert_array_equal(gm.ops.tanh(np.array([np.inf, -np.inf, np.nan], dtype)), [1, -1, np.nan])


@pytest.mark.parametrize(("dtype", "wide"), WIDER)
def test_sigmoid_within_4_ulp(isa: str, dtype: type, wide: type) -> None:
    low = float(np.log(np.finfo(dtype).tiny)) + 1e-3
    x = sweep(dtype, low, 50)
    assert ulps(gm.ops.sigmoid(x), reference.logistic(x.astype(wide))) <= 4
    special = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)
    np.testing.assert_array_equal(gm.ops.sigmoid(special), [1, 0, np.nan, 1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_erf_within_4_ulp(isa: str, dtype: type) -> None:
    """The C library's float64 erf is the yardstick, itself within 1 ULP: in float64 that one is granted."""
    x = sweep(dtype, -7, 7)
    out = np.empty_like(x)
    _core.erf(x, out)
    assert ulps(out, reference.erf(x)) <= (4 if dtype == np.float32 else 5)
    x = np.array([0, np.inf, -np.inf, np.nan, 100], dtype)
    out = np.empty_like(x)
    _core.erf(x, out)
    np.testing.assert_array_equal(out, [0, 1, -1, np.nan, 1])


# -- activations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation_and_its_backward(isa: str, dtype: type, name: str) -> None:
    """f and f' of |z| up to some 20, each some few roundings of quantities no larger than |z| + 1."""
    rng = np.random.default_rng(1)
    form, eps = reference.ACTIVATIONS[name], np.finfo(dtype).eps
    for size in SIZES:
        for slope in {form.slope, SLOPED.get(name, form.slope)}:
            z = (rng.standard_normal(size) * 6).astype(dtype)
            dh = rng.standard_normal(size).astype(dtype)
            wide = z.astype(float)
            h = activation(name, z, slope)
            bound = 16 * eps * (1 + abs(wide))
            assert h.dtype == dtype
            assert (abs(h - form.f(wide, slope)) <= bound * max(1, slope)).all(), (size, slope)
            dz = activation_backward(name, dh, z, slope)
            error = abs(dz - dh.astype(float) * form.df(wide, slope))
            assert (error <= bound * max(1, slope) ** 2 * abs(dh)).all(), (size, slope)


def test_activations_by_their_own_names() -> None:
    z = np.linspace(-3, 3, 50)
    for name in ("relu", "silu", "tanh", "softplus", "gelu"):
        np.testing.assert_array_equal(getattr(gm.ops, name)(z), gm.ops.activation(z, name))
    np.testing.assert_array_equal(gm.ops.gelu(z, approximate=True), gm.ops.activation(z, "gelu_tanh"))
    for name, slope in SLOPED.items():
        np.testing.assert_array_equal(getattr(gm.ops, name)(z, slope), gm.ops.activation(z, name, slope))


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
def test_activation_of_any_strides(isa: str, name: str) -> None:
    z = np.random.default_rng(2).standard_normal((7, 19)).astype(np.float32)
    slope = reference.ACTIVATIONS[name].slope
    want = activation(name, z, slope)
    want_dz = activation_backward(name, want, z, slope)
    for view in strided(z):
        np.testing.assert_array_equal(activation(name, view, slope), want)
        np.testing.assert_array_equal(activation_backward(name, want, view, slope), want_dz)
        out = np.empty_like(view)
        assert activation(name, view, slope, out=out) is out
        np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_20_activation_of_special_values(isa: str, dtype: type, name: str) -> None:
    """NaN stays NaN; inf gives the limit, and -inf too but in z times a vanishing factor: -inf 0 is NaN."""
    slope = reference.ACTIVATIONS[name].slope
    limits = {
        "identity": (np.inf, -np.inf),
        "relu": (np.inf, 0),
        "leaky_relu": (np.inf, -np.inf),
        "elu": (np.inf, -1),
        "sigmoid": (1, 0),
        "tanh": (1, -1),
        "softplus": (np.inf, 0),
    }
    above, below = limits.get(name, (np.inf, np.nan))
    z = np.array([np.nan, np.inf, -np.inf] * 11, dtype)  # in vector bodies and tails
    got = activation(name, z, slope)
    np.testing.assert_array_equal(got, np.array([np.nan, above, below] * 11))
    if name not in ("identity", "relu", "leaky_relu", "elu"):  # whose f' is a choice between constants
        assert np.isnan(activation_backward(name, np.ones_like(z), z, slope)[::3]).all()


def test_derivative_at_the_kink_is_pytorchs(isa: str) -> None:
    one, zero = np.ones(40, np.float32), np.zeros(40, np.float32)
    for name, want in [("relu", 0.0), ("leaky_relu", 0.01), ("elu", 1.0)]:
        got = activation_backward(name, one, zero, reference.ACTIVATIONS[name].slope)
        np.testing.assert_array_equal(got, np.float32(want) * one, err_msg=name)


# -- softmax -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_backward(isa: str, dtype: type) -> None:
    """exp errs by 2 ULP, and by |z - max| eps in its argument; an accumulator takes at most 384 terms."""
    rng = np.random.default_rng(3)
    eps = np.finfo(dtype).eps
    for shape in [*ROWS, (0, 5), (300, 10)]:
        z = (rng.standard_normal(shape) * 5).astype(dtype)
        dh = rng.standard_normal(shape).astype(dtype)
        want = reference.softmax(z.astype(float)) if z.size else z
        for view in strided(z):
            h = gm.ops.softmax(view)
            np.testing.assert_allclose(h, want, rtol=(16 + 2 * abs(z).max(initial=0)) * eps, atol=0)
        h = want.astype(dtype)
        want_dz = reference.softmax_backward(dh.astype(float), h.astype(float))
        # <dh, h> is a mean of dh: its error is a few eps of the largest |dh|.
        np.testing.assert_allclose(
            gm.ops.softmax_backward(dh, h) - want_dz, 0, atol=16 * eps * abs(dh).max(initial=0)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_huge_values(isa: str, dtype: type) -> None:
    z = np.array([[1e30, 0, -1e30], [-1e30, -1e30, -1e30], [1e4, 1e4, 0]], dtype)
    np.testing.assert_allclose(
        gm.ops.softmax(z), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], rtol=1e-6
    )
    z = np.array([[-np.inf, 0.0, 0.0]], dtype)
    np.testing.assert_array_equal(gm.ops.softmax(z), [[0, 0.5, 0.5]])


@pytest.mark.parametrize("columns", [3, 17, 40])
def test_fault_20_a_nan_fills_its_row_of_softmax(isa: str, columns: int) -> None:
    z = np.zeros((4, columns), np.float32)
    z[1, -1], z[2, 0] = np.nan, np.inf
    nan = np.isnan(gm.ops.softmax(z))
    assert nan[1:3].all()
    assert not nan[[0, 3]].any()


# -- losses --------------------------------------------------------------------------------------------------


def loss_case(name: str, shape: tuple[int, int], dtype: type, seed: int = 4) -> tuple[Array, list[Array]]:
    """A prediction, and targets of each form that the loss takes."""
    rng = np.random.default_rng(seed)
    pred, real = ((rng.standard_normal(shape) * 3).astype(dtype) for _ in range(2))
    if name == "bce":
        pred = rng.uniform(0.01, 0.99, shape).astype(dtype)
    if name.startswith("bce"):
        return pred, [rng.integers(0, 2, shape), rng.random(shape).astype(dtype)]
    if name.startswith("cross_entropy"):
        labels = rng.integers(0, shape[1], shape[0])
        return pred, [labels, *distributions(labels, shape[1], dtype)]
    if name == "kl_divergence":
        return pred, distributions(rng.integers(0, shape[1], shape[0]), shape[1], dtype)
    if name == "hinge":
        labels = [rng.integers(0, shape[1], shape[0])] if shape[1] > 1 else []
        return pred, [rng.choice([-1, 1], shape), *labels]
    if name == "poisson":
        return pred / 3, [rng.poisson(2, shape), rng.random(shape).astype(dtype)]
    return pred, [real, pred.copy()]


def distributions(labels: Array, classes: int, dtype: type) -> list[Array]:
    soft = np.random.default_rng(6).dirichlet(np.ones(classes), len(labels))
    return [reference.one_hot(labels, classes).astype(dtype), soft.astype(dtype)]


@pytest.mark.parametrize("name", list(reference.LOSSES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_gradient(isa: str, dtype: type, name: str) -> None:
    """Terms of order 10 at most, each a few roundings; the mean of many is no worse than one."""
    eps = float(np.finfo(dtype).eps)
    for shape in [s for s in [*ROWS, (64, 10), (33, 2)] if s[1] > 1 or not name.startswith(("cross", "kl"))]:
        pred, targets = loss_case(name, shape, dtype)
        for target in targets:
            loss, grad = getattr(gm.losses, name)(pred, target)
            wide = target if target.ndim == 1 else target.astype(float)
            want, want_grad = reference.LOSSES[name](pred.astype(float), wide)
            assert loss == pytest.approx(want, rel=64 * eps, abs=64 * eps)
            assert grad.dtype == dtype
            # bce divides by p (1 - p) >= 0.0099, which magnifies the rounding of p as much.
            np.testing.assert_allclose(
                grad,
                want_grad,
                rtol=64 * eps,
                atol=(400 if name == "bce" else 32) * eps / grad.size * shape[1],
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_probabilities(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.ones(7), 20).astype(dtype)
    labels = rng.integers(0, 7, 20)
    for target in (labels, reference.one_hot(labels, 7)):
        loss, grad = gm.losses.cross_entropy(p, target, from_logits=False)
        want, want_grad = reference.cross_entropy_probabilities(p.astype(float), target)
        assert loss == pytest.approx(want, rel=64 * float(np.finfo(dtype).eps))
        np.testing.assert_allclose(grad, want_grad, rtol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_huge_logits_are_finite(isa: str, dtype: type) -> None:
    z = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype)
    loss, grad = gm.losses.cross_entropy(z, np.array([0, 0]))
    assert loss == 1e4
    np.testing.assert_array_equal(grad, [[0, 0, 0], [-0.5, 0.5, 0]])
    loss, grad = gm.losses.bce_with_logits(z, np.array([[1, 0, 1], [1, 0, 0]]))
    assert loss == pytest.approx((2e4 + 2 * math.log(2)) / 6, rel=1e-6)
    np.testing.assert_allclose(grad, np.array([[0, 0, -0.5], [-1, 1, 0.5]]) / 6, rtol=1e-6)
    p = np.array([[0.0, 1.0], [1.0, 0.0]], dtype)
    loss, grad = gm.losses.bce(p, p)
    assert loss == 0
    assert not grad.any()
    loss, grad = gm.losses.bce(p, 1 - p)
    assert loss == 100  # PyTorch's clamp of the logarithm
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", list(reference.LOSSES))
def test_fault_20_losses_of_nan_are_nan(isa: str, name: str) -> None:
    pred, targets = loss_case(name, (9, 21), np.float32)
    pred[4, 17] = np.nan
    for target in targets:
        loss, grad = getattr(gm.losses, name)(pred, np.nan_to_num(target))
        assert math.isnan(loss)
        assert np.isnan(grad[4, 17])
        assert not np.isnan(np.delete(grad, 4, axis=0)).any()


# -- dropout -------------------------------------------------------------------------------------------------


def test_philox_gives_its_published_words() -> None:
    """Known answers of Random123, so that the reference is one."""
    ones = np.full(4, 0xFFFFFFFF)
    digits = np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344])
    for counter, key, want in [
        (np.zeros(4), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (ones, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (digits, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]:
        assert " ".join(f"{word:08x}" for word in reference.philox4x32(counter, key)) == want


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 4), (5, 33), (70, 65)])
def test_dropout_draws_the_masks_of_philox(isa: str, dtype: type, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(6).standard_normal(shape).astype(dtype)
    for rate, key, step, layer in [(0.5, 0, 0, 0), (0.1, 2**63 + 5, 7, 3), (0.9, 123456789012345, 2**31, 1)]:
        out = np.empty_like(x)
        _core.dropout(x, out, rate, key, step, layer)
        scale = reference.dropout_scale(shape, rate, key=key, step=step, layer=layer)
        np.testing.assert_array_equal(out == 0, scale == 0)
        np.testing.assert_allclose(out, x * scale, rtol=2 * np.finfo(dtype).eps)


def test_dropout_of_a_seed() -> None:
    """The public op: its mask is a function of (seed, step, layer, sample, unit); its backward is itself."""
    x = np.random.default_rng(9).standard_normal((20, 30))
    y = gm.ops.dropout(x, 0.4, rng=5, step=3, layer=1)
    np.testing.assert_array_equal(gm.ops.dropout(np.ones_like(x), 0.4, rng=5, step=3, layer=1) * x, y)
    np.testing.assert_array_equal(gm.ops.dropout(x[:7], 0.4, rng=5, step=3, layer=1), y[:7])
    assert not np.array_equal(gm.ops.dropout(x, 0.4, rng=6, step=3, layer=1), y)
    np.testing.assert_array_equal(gm.ops.dropout(x, 0.0, rng=5), x)
    with pytest.raises(ValueError, match="rate"):
        gm.ops.dropout(x, 1.0, rng=5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_drops_its_share(isa: str, rate: float) -> None:
    """The share dropped of n draws is within 5 deviations sqrt(rate (1 - rate) / n); the mean is kept."""
    x, out = np.ones((400, 500), np.float32), np.empty((400, 500), np.float32)
    _core.dropout(x, out, rate, 42, 1, 0)
    deviation = math.sqrt(rate * (1 - rate) / x.size)
    assert abs((out == 0).mean() - rate) < 5 * deviation
    assert abs(out.mean(dtype=float) - 1) < 5 * deviation / (1 - rate)
    other = np.empty_like(out)
    for step, layer in [(2, 0), (1, 1)]:
        _core.dropout(x, other, rate, 42, step, layer)
        agreement = ((other == 0) == (out == 0)).mean()
        assert abs(agreement - (rate**2 + (1 - rate) ** 2)) < 0.01


# -- reductions, dense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulate", [False, True])
def test_sum_rows(isa: str, dtype: type, accumulate: bool) -> None:
    """Exact on integers; the bound of a gemm with a row of ones otherwise."""
    rng = np.random.default_rng(7)
    for shape in [(0, 5), (1, 1), (7, 17), (385, 33), (1000, 65), (2000, 3)]:
        x = rng.integers(-99, 100, shape).astype(dtype)
        out = np.full(shape[1], 3, dtype)
        _core.sum_rows(x, out, accumulate)
        np.testing.assert_array_equal(out, x.sum(axis=0) + 3 * accumulate)
    x = rng.random((50_000, 3)).astype(dtype)
    out = np.empty(3, dtype)
    _core.sum_rows(x, out, False)
    want = x.sum(axis=0, dtype=np.longdouble)
    assert (abs(out - want) < 16 * np.finfo(dtype).eps * want).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_and_its_backward(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(8)
    eps = np.finfo(dtype).eps
    for n, n_in, n_out in [(1, 1, 1), (3, 5, 2), (64, 33, 17), (65, 130, 10), (1, 40, 70)]:
        x = rng.standard_normal((n, n_in)).astype(dtype)
        w = rng.standard_normal((n_out, n_in)).astype(dtype)
        b = rng.standard_normal(n_out).astype(dtype)
        dz = rng.standard_normal((n, n_out)).astype(dtype)
        exact = [array.astype(np.longdouble) for array in (x, w, b, dz)]
        size = [abs(array) for array in exact]
        z = gm.ops.dense(x, w, b)
        assert (abs(z - reference.dense(*exact[:3])) <= 16 * eps * reference.dense(*size[:3])).all()
        got = gm.ops.dense_backward(dz, x, w)
        want = reference.dense_backward(exact[0], exact[1], exact[3])
        bounds = reference.dense_backward(size[0], size[1], size[3])
        for array, value, bound in zip(got, want, bounds, strict=True):
            assert (abs(array - value) <= 16 * eps * bound).all()
