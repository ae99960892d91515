"""Products in bfloat16: with the instruction where the CPU has it, and as every ISA without it does them.

`rounded` below is the definition, in NumPy; the bounds are those of docs/math.md.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference
from helpers import classification, gradients, run_python, weights
from hypothesis import HealthCheck, given, settings
from matrices import EDGES, TRANSPOSES, Array, Product, integers, laid_out, lapack_ratio, operands, products

import gemmule as gm
from gemmule import _core

U = 2.0**-8  # unit roundoff of 8 significant bits
ROWS = [1, 2, 3, 5, 6, 11, 12, 13, 25]
COLS = [1, 15, 16, 17, 31, 32, 33, 48, 65]
# Pairs, whole vectors of pairs (32) and the blocks of the depth (384 steps) end in these.
DEPTHS = [0, 1, 2, 3, 31, 32, 33, 47, 64, 65, 383, 385, 767, 768, 769, 1537]


@pytest.fixture(autouse=True)
def default_numerics() -> Iterator[None]:
    yield
    gm.set_numerics("default")


def rounded(x: Array) -> Array:
    """To the nearest of float32's numbers with 16 low bits of zeros, ties to even; NaN stays, subnormals are
    0."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    nearest = np.where(bits & 0x7F800000 == 0, bits & 0x80000000, nearest)
    return np.where(np.isnan(x), np.float32(np.nan), nearest.astype(np.uint32).view(np.float32))


# -- rounding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("along", ["depth", "across", "strided"])
def test_operands_are_rounded_to_nearest_even(bf16_isa: str, side: str, along: str) -> None:
    """Every bfloat16 with the low halves about a tie, times one, in every way that packing reads them."""
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = ((np.arange(2**16, dtype=np.uint32) << 16)[:, None] | low).view(np.float32).ravel()
    for place in (0, 1):  # of a pair
        unit = np.zeros((1, 2), np.float32)
        unit[0, place] = 1
        pairs = np.zeros((x.size, 2), np.float32)
        pairs[:, place] = x
        if along == "strided":
            pairs = laid_out(pairs, "every_other")
        turned = along == "across"
        data = np.ascontiguousarray(pairs.T) if turned else pairs
        if side == "a":
            got = gm.ops.gemm(data, unit, trans_a=turned, trans_b=True, precision="bf16")
        else:
            got = gm.ops.gemm(unit, data, trans_b=not turned, precision="bf16")
        np.testing.assert_array_equal(got.ravel(), rounded(x))


def test_nan_infinity_and_overflow(bf16_isa: str) -> None:
    """A NaN whose payload is in the half that is cut stays one; what is nearer to 2**128 becomes infinite."""
    payload = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    values = np.array([*payload, np.inf, -np.inf, 3.4028235e38, -3.4e38, 3.38e38, 1e-40], np.float32)
    for k in (1, 2, 5):
        a = np.zeros((len(values), k), np.float32)
        a[:, -1] = values
        b = np.zeros((k, 3), np.float32)
        b[-1] = 0.5
        got = gm.ops.gemm(a, b, precision="bf16")
        assert np.isnan(got[:2]).all()
        np.testing.assert_array_equal(
            got[2:, 0], [np.inf, -np.inf, np.inf, -np.inf, rounded(values)[6] / 2, 0]
        )
    poisoned = np.full((3, 4), np.nan, np.float32)
    gm.ops.gemm(a[:3], np.ones((k, 4), np.float32), poisoned, precision="bf16")
    assert np.isinf(poisoned[2]).all()  # beta = 0 did not read the NaN


# -- products ------------------------------------------------------------------------------------------------


@given(product=products(DEPTHS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_error_bounds(bf16_isa: str, product: Product) -> None:
    """Of the rounded operands' product LAPACK's 16 eps, of the product itself (2u + u^2) |A||B| beside it."""
    a, b, c, options = product.draw(np.float32)
    near, size = reference.gemm(rounded(a), rounded(b), c, **options)
    far, plain_size = reference.gemm(a, b, c, **options)
    got = gm.ops.gemm(a, b, out=c, precision="bf16", **options)
    assert got is c
    assert lapack_ratio(got, near, size) < 16
    bound = (2 * U + U * U) * plain_size + 16 * np.finfo(np.float32).eps * size
    assert (abs(got - far) <= bound).all()


def test_exact_on_integers_in_deep_blocks(bf16_isa: str) -> None:
    """More than 512 rows, whose blocks may hold several chains of the depth; more than one such block, and
    more than one of the columns; an odd depth; into a C that holds NaN, and added to it."""
    rng = np.random.default_rng(16)
    for m, n, k in [(520, 45, 1501), (530, 1100, 800), (515, 70, 2600)]:
        a, b = integers(rng, (m, k), np.float32), integers(rng, (k, n), np.float32)
        bias, plain = integers(rng, (n,), np.float32), a @ b
        c = np.full((m, n), np.nan, np.float32)
        gm.ops.gemm(a, b, c, alpha=-1, bias=bias, activation="relu", precision="bf16")
        np.testing.assert_array_equal(c, np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")
        gm.ops.gemm(a, b, c, beta=2, precision="bf16")
        np.testing.assert_array_equal(c, plain + 2 * np.maximum(bias - plain, 0), err_msg=f"{m} {n} {k}")


@pytest.mark.parametrize("shape", [(1, 10, 50_176), (12, 33, 20_000), (200, 190, 1_000)])
def test_long_sums_of_positive_numbers(bf16_isa: str, shape: tuple[int, int, int]) -> None:
    """Chains of at most 768 terms: a ratio under 16 whatever k."""
    rng = np.random.default_rng(1)
    m, n, k = shape
    a, b = rng.random((m, k)).astype(np.float32), rng.random((n, k)).astype(np.float32)
    want, size = reference.gemm(rounded(a), rounded(b), trans_b=True)
    assert lapack_ratio(gm.ops.gemm(a, b, trans_b=True, precision="bf16"), want, size) < 16


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSES)
def test_exact_on_integers(bf16_isa: str, trans_a: bool, trans_b: bool) -> None:
    """Integers up to 256 are bfloat16: no rounding, no term lost or doubled, at every edge of a tile."""
    rng = np.random.default_rng(2)
    cases = [(m, n, k) for m in ROWS for n in COLS for k in (1, 2, 33)]
    cases += [(m, n, k) for m, n in EDGES[::4] for k in DEPTHS]
    for m, n, k in cases:
        a, b = operands(lambda shape: integers(rng, shape, np.float32), m, n, k, trans_a, trans_b)
        c, bias = integers(rng, (m, n), np.float32), integers(rng, (n,), np.float32)
        want = np.maximum(3 * c - (a.T if trans_a else a) @ (b.T if trans_b else b) + bias, 0)
        got = gm.ops.gemm(
            a, b, c, alpha=-1, beta=3, trans_a=trans_a, trans_b=trans_b, bias=bias, activation="relu",
            precision="bf16",
        )  # fmt: skip
        np.testing.assert_array_equal(got, want, err_msg=f"m={m} n={n} k={k}")
    a, b = np.full((1, 200), 256, np.float32), np.full((200, 1), 255, np.float32)
    assert gm.ops.gemm(a, b, precision="bf16") == 200 * 256 * 255


@pytest.mark.parametrize("shape", [(33, 1300, 40), (2100, 33, 40), (1200, 1100, 1600)])
def test_exact_on_integers_at_block_edges(bf16_isa: str, shape: tuple[int, int, int], threads: int) -> None:
    """Wider, taller and deeper than what is packed at once, split over any number of threads."""
    rng = np.random.default_rng(3)
    m, n, k = shape
    a, b = integers(rng, (m, k), np.float32), integers(rng, (k, n), np.float32)
    np.testing.assert_array_equal(gm.ops.gemm(a, b, precision="bf16"), a @ b)


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
def test_bias_and_activation(bf16_isa: str, activation: str) -> None:
    """As in float32: z within 16 eps G, |f'| at most 1.13, some eps for f itself."""
    rng = np.random.default_rng(4)
    form = reference.ACTIVATIONS[activation]
    eps = np.finfo(np.float32).eps
    for m, n, k in [(1, 77, 20), (13, 33, 50), (30, 130, 390)]:
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
        bias = rng.standard_normal(n).astype(np.float32)
        z, size = reference.gemm(rounded(a), rounded(b), trans_b=True, bias=bias)
        got = gm.ops.gemm(a, b, trans_b=True, bias=bias, activation=activation, precision="bf16")
        assert (abs(got - form.f(z, form.slope)) <= eps * (1.13 * 16 * size + 8 * (abs(z) + 1))).all()


@pytest.mark.parametrize("shape", [(1, 2000, 1500), (2000, 1, 1500), (64, 256, 784), (301, 387, 1025)])
def test_threads_do_not_change_a_bit(bf16_isa: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(11)
    for trans_a, trans_b in TRANSPOSES:
        a, b = operands(
            lambda shape: rng.standard_normal(shape).astype(np.float32), m, n, k, trans_a, trans_b
        )
        results = set()
        for count in (1, 2, 3, 7, 16):
            gm.set_num_threads(count)
            got = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b, activation="tanh", precision="bf16")
            results.add(got.tobytes())
        gm.set_num_threads(None)
        assert len(results) == 1, (trans_a, trans_b)


def test_out_may_overlap_an_input(bf16_isa: str) -> None:
    a = integers(np.random.default_rng(9), (40, 40), np.float32)
    want = a @ a
    np.testing.assert_array_equal(gm.ops.gemm(a, a.copy(), out=a, precision="bf16"), want)


# -- layers --------------------------------------------------------------------------------------------------


def test_the_three_products_of_a_layer(bf16_isa: str) -> None:
    """z = x W^T, dW = dz^T x, dx = dz W with both operands rounded, within LAPACK's 16 eps; db is not a
    product."""
    rng = np.random.default_rng(5)
    for rows, n_in, n_out in [(1, 5, 3), (31, 70, 33), (64, 130, 40)]:
        net = gm.Network([gm.Dense(n_in, n_out, precision="bf16")], rng=0)
        x, dz = (rng.standard_normal((rows, n)).astype(np.float32) for n in (n_in, n_out))
        weight = np.array(net[0].weight)
        assert lapack_ratio(net.forward(x), *reference.gemm(rounded(x), rounded(weight), trans_b=True)) < 16
        np.testing.assert_array_equal(net.predict(x), net.forward(x))
        net.zero_grad()
        dx = net.backward(dz)
        assert lapack_ratio(dx, *reference.gemm(rounded(dz), rounded(weight))) < 16
        dw = np.array(net[0].weight.grad)
        assert lapack_ratio(dw, *reference.gemm(rounded(dz), rounded(x), trans_a=True)) < 16
        np.testing.assert_allclose(net[0].bias.grad, dz.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_gradients_through_a_network_are_near_those_of_float32(bf16_isa: str) -> None:
    """Six rounded operands lie between the input and any gradient here, 2^-8 each; errors add up at most."""
    x, y = classification()
    nets = [gm.Network.mlp([2, 32, 32, 3], activation="tanh", rng=3) for _ in range(2)]
    for layer in nets[1]:
        layer.precision = "bf16"
    for net in nets:
        net.zero_grad()
        _, dz = gm.losses.cross_entropy(net.forward(x), y)
        net.backward(dz)
    for (name, full), (_, bf16) in zip(nets[0].named_parameters(), nets[1].named_parameters(), strict=True):
        assert np.linalg.norm(full.grad - bf16.grad) <= 6 * U * np.linalg.norm(full.grad), name


def test_digits_train_as_well(bf16_isa: str) -> None:
    x, y = gm.datasets.digits()
    accuracy = {}
    gm.set_num_threads(1)
    for precision in ("full", "bf16"):
        net = gm.Network.mlp([64, 64, 10], rng=0)
        history = net.fit(
            x, y, loss="cross_entropy", epochs=12, batch_size=16, validation_split=0.2, metrics=["accuracy"],
            precision=precision,
        )  # fmt: skip
        accuracy[precision] = history["val_accuracy"][-1]
    gm.set_num_threads(None)
    # 1.5 % of the 360 held out: five digits.
    assert accuracy["full"] > 0.95
    assert accuracy["bf16"] > accuracy["full"] - 0.015


def test_training_is_bitwise_the_same_for_any_number_of_threads(bf16_isa: str) -> None:
    x, y = gm.datasets.digits()
    results = set()
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net = gm.Network.mlp([64, 128, 10], rng=0)
        net.fit(x[:500], y[:500], loss="cross_entropy", epochs=2, batch_size=64, precision="bf16")
        results.add(tuple(weights(net).values()) + tuple(gradients(net).values()))
    gm.set_num_threads(None)
    assert len(results) == 1


def test_who_decides_on_a_layers_precision() -> None:
    """The layer, where it says something; else the fit, while it lasts."""
    x, y = classification()

    def trained(layer: str | None, fit: str | None) -> dict[str, bytes]:
        net = gm.Network([gm.Dense(2, 16, "tanh", precision=layer), gm.Dense(16, 3)], rng=0)
        net[1].precision = layer
        net.fit(x, y, loss="cross_entropy", epochs=3, precision=fit)
        return weights(net)

    full, bf16 = trained(None, None), trained(None, "bf16")
    assert full != bf16
    assert trained("full", "bf16") == trained(None, "full") == full
    assert trained("bf16", None) == trained("bf16", "full") == trained("bf16", "bf16") == bf16
    net = gm.Network([gm.Dense(2, 3)], rng=0)
    before = net.predict(x)
    net[0].precision = "bf16"
    assert not np.array_equal(net.predict(x), before)
    net[0].precision = None
    np.testing.assert_array_equal(net.predict(x), before)


def test_plan_and_verbose_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    net = gm.Network([gm.Dense(8, 16, "relu", precision="bf16"), gm.Dense(16, 3, precision="full")], rng=0)
    net.plan(64)
    plan = capsys.readouterr().out
    assert plan.count("dense bf16") == 1
    assert plan.count("matmul bf16") == 1
    code = (
        "import numpy as np, gemmule as gm\n"
        "a = np.ones((8, 8), np.float32)\n"
        "gm.ops.gemm(a, a, precision='bf16')"
    )
    for isa in _core.supported_isas():
        path = "bf16 pairs" if isa == "avx512_bf16" else "rounded to bf16"
        assert f'path="{path}"' in run_python(code, GEMMULE_VERBOSE="1", GEMMULE_MAX_ISA=isa).stderr


def test_files_keep_it(tmp_path: Path) -> None:
    x, _ = classification()
    net = gm.Network([gm.Dense(2, 16, "tanh", precision="bf16"), gm.Dense(16, 3)], rng=0)
    net.save(tmp_path / "net.safetensors")
    loaded = gm.load(tmp_path / "net.safetensors")
    assert [layer.precision for layer in loaded] == ["bf16", None]
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert "precision='bf16'" in repr(net[0])


# -- strict, and what cannot be ------------------------------------------------------------------------------


def test_strict_numerics_switch_it_off() -> None:
    assert gm.numerics() == "default"
    x, y = classification()
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal((40, 40)).astype(np.float32) for _ in range(2))

    def trained(precision: str | None) -> dict[str, bytes]:
        net = gm.Network.mlp([2, 16, 3], rng=0)
        net.fit(x, y, loss="cross_entropy", epochs=2, precision=precision)
        return weights(net)

    net = gm.Network([gm.Dense(2, 3, precision="bf16")], rng=0)
    plain = gm.Network([gm.Dense(2, 3)], rng=0)
    assert not np.array_equal(net.predict(x), plain.predict(x))  # compiled: the setting counts all the same
    gm.set_numerics("strict")
    assert gm.numerics() == "strict"
    np.testing.assert_array_equal(gm.ops.gemm(a, b, precision="bf16"), gm.ops.gemm(a, b))
    np.testing.assert_array_equal(net.predict(x), plain.predict(x))
    assert trained("bf16") == trained(None)
    gm.set_numerics("default")
    assert not np.array_equal(gm.ops.gemm(a, b, precision="bf16"), gm.ops.gemm(a, b))
    assert not np.array_equal(net.predict(x), plain.predict(x))


def test_unknown_names_show_the_choices() -> None:
    a = np.ones((2, 2), np.float32)
    net = gm.Network([gm.Dense(2, 2)], rng=0)
    with pytest.raises(ValueError, match=r"gemm: precision is 'half'; known: full, bf16"):
        gm.ops.gemm(a, a, precision="half")
    with pytest.raises(ValueError, match=r"Dense: precision is 'fp16'; known: full, bf16"):
        gm.Dense(2, 2, precision="fp16")
    with pytest.raises(ValueError, match=r"fit: precision is 'tf32'; known: full, bf16"):
        net.fit(a, a, loss="mse", precision="tf32")
    with pytest.raises(ValueError, match=r"numerics 'loose'; known: default, strict"):
        gm.set_numerics("loose")  # type: ignore[arg-type]
    assert gm.numerics() == "default"


def test_float64_is_refused() -> None:
    a = np.ones((2, 2))
    out = np.full((2, 2), 7.0)
    with pytest.raises(gm.DTypeError, match="gemm: precision 'bf16' takes float32 matrices, not float64"):
        gm.ops.gemm(a, a, out, precision="bf16")
    assert (out == 7).all()
    net = gm.Network([gm.Dense(2, 2)], dtype="float64", rng=0)
    before = weights(net)
    with pytest.raises(gm.DTypeError, match=r"fit: precision 'bf16' is for float32.*float64"):
        net.fit(a, a, loss="mse", precision="bf16")
    net[0].precision = "bf16"
    for run in (net.predict, lambda x: net.fit(x, x, loss="mse")):
        with pytest.raises(gm.DTypeError, match=r"Dense\(2, 2, precision='bf16'\).*float32.*float64"):
            run(a)
    assert weights(net) == before
