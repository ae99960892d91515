"""`gm.ops.batch_norm`, `group_norm`, `layer_norm` and their backward: against float64, for any number of
threads, in both layouts, and what they refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differences import ATOL, RTOL, differences
from image_cases import channels_first, layouts_in_memory
from matrices import DTYPES
from norm_reference import (
    Array,
    Result,
    assert_sums_within,
    assert_within,
    normalize,
    normalize_backward,
    statistics,
)

import gemmule as gm

# (pixels, channels): around the lanes of vectors, odd, and more pixels than a block of statistics has.
BATCHES = [
    (1, 1), (2, 1), (7, 3), (5000, 1), (2500, 3), (33, 5), (900, 10), (1, 16), (801, 16), (64, 33), (129, 64),
    (50, 100), (40, 257), (400, 257),
]  # fmt: skip
# (samples, pixels, channels, groups)
GROUPS = [
    (1, 1, 1, 1), (3, 1, 7, 1), (5, 1, 12, 4), (300, 1, 33, 3), (2, 1, 5000, 1), (7, 1, 257, 1),
    (600, 1, 10, 2),
    (3, 4, 3, 3), (2, 1500, 1, 1), (2, 700, 3, 1), (4, 49, 16, 4), (3, 30, 10, 5), (2, 65, 64, 8),
    (2, 20, 257, 257), (9, 9, 33, 11), (1, 5000, 6, 2),
]  # fmt: skip
# Means: 0, and so large that squares about 0 would have nothing left of the variance.
MEANS = [0.0, 300.0]


def drawn(shape: tuple[int, ...], dtype: Any, mean: float = 0.0, seed: int = 0) -> Array:
    """Normal deviates, every channel with a mean and a deviation of its own."""
    rng = np.random.default_rng(seed)
    scale, middle = rng.uniform(0.5, 2, shape[-1]), mean * rng.uniform(0.5, 1, shape[-1])
    return (rng.standard_normal(shape) * scale + middle).astype(dtype)


def factors(channels: int, dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(channels)
    return rng.uniform(0.5, 2, channels).astype(dtype), rng.standard_normal(channels).astype(dtype)


def as_hard(dtype: Any, mean: float) -> float:
    """The mean that asks as much of float64 as this one does of float32."""
    return mean if dtype == np.float32 else mean * 1e8


# -- batch_norm ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES)
def test_batch_norm(isa: str, shape: tuple[int, int], dtype: Any, mean: float) -> None:
    x = drawn(shape, dtype, as_hard(dtype, mean))
    weight, bias = factors(shape[1], dtype)
    dy = drawn(shape, dtype, seed=1)
    middle, var = statistics(x, (0,))
    u = float(np.finfo(dtype).eps)
    for more in ({}, {"weight": weight, "bias": bias}, {"weight": weight}, {"bias": bias}):
        y, found_mean, found_var = gm.ops.batch_norm(x, **more)
        assert y.dtype == found_mean.dtype == found_var.dtype == x.dtype
        assert_within(y, normalize(x, (0,), more.get("weight", 1.0), more.get("bias", 0.0)), str(list(more)))
        deviation = abs(x - middle).mean(axis=0)
        blocks = 2 * float(np.finfo(np.float64).eps) * abs(middle[0]) * np.sqrt(var[0])  # as in the reference
        var_error = 64 * u * var[0] + (u * middle[0]) ** 2 + blocks
        assert_within(found_mean, Result(middle[0], 64 * u * deviation + 2 * u * abs(middle[0])), "mean")
        assert_within(found_var, Result(var[0], var_error), "var")
        if "bias" in more:
            continue
        dx, dweight, dbias = gm.ops.batch_norm_backward(dy, x, **more)
        wanted = normalize_backward(dy, x, (0,), more.get("weight", 1.0))
        assert_within(dx, wanted.dx, "dx")
        assert_sums_within(dweight, wanted.products, (0,), "dweight")
        assert_sums_within(dbias, Result(dy.astype(np.float64), 64 * u * abs(dy)), (0,), "dbias")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 3), (900, 10), (129, 64), (40, 257)])
def test_batch_norm_with_given_statistics(isa: str, shape: tuple[int, int], dtype: Any) -> None:
    x, dy = drawn(shape, dtype, 3.0), drawn(shape, dtype, seed=1)
    weight, bias = factors(shape[1], dtype)
    mean, var = factors(shape[1], dtype)[1], factors(shape[1], dtype)[0]
    given = mean.astype(np.float64)[None], var.astype(np.float64)[None]
    y, same_mean, same_var = gm.ops.batch_norm(x, weight, bias, mean, var, eps=1e-3)
    np.testing.assert_array_equal(same_mean, mean)
    np.testing.assert_array_equal(same_var, var)
    assert_within(y, normalize(x, (0,), weight, bias, 1e-3, given))
    dx, dweight, dbias = gm.ops.batch_norm_backward(dy, x, weight, mean, var, eps=1e-3)
    wanted = normalize_backward(dy, x, (0,), weight, 1e-3, given)
    assert_within(dx, wanted.dx, "dx")
    assert_sums_within(dweight, wanted.products, (0,), "dweight")
    np.testing.assert_allclose(dbias, dy.sum(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-4)
    assert gm.ops.batch_norm(x[:0], weight, bias, mean, var)[0].shape == (0, shape[1])


# -- group_norm and layer_norm -------------------------------------------------------------------------------


def in_groups(x: Array, groups: int) -> Array:
    """(samples, pixels, groups, channels of each)"""
    return x.reshape(*x.shape[:2], groups, -1)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", GROUPS)
def test_group_norm(isa: str, case: tuple[int, int, int, int], dtype: Any, mean: float) -> None:
    *shape, groups = case
    x, dy = drawn(tuple(shape), dtype, 0.0), drawn(tuple(shape), dtype, seed=1)
    x = (x + as_hard(dtype, mean)).astype(dtype)  # one mean: a group's channels must not lie far apart
    weight, bias = factors(shape[2], dtype)
    x4, dy4, axes = in_groups(x, groups), in_groups(dy, groups), (1, 3)
    u = float(np.finfo(dtype).eps)
    for more in ({}, {"weight": weight, "bias": bias}):
        w, b = (more.get(name, d * np.ones(shape[2])) for name, d in (("weight", 1.0), ("bias", 0.0)))
        w, b = w.reshape(groups, -1), b.reshape(groups, -1)
        y = gm.ops.group_norm(x, groups, **more)
        assert y.dtype == x.dtype
        assert_within(in_groups(y, groups), normalize(x4, axes, w, b), str(list(more)))
        found = gm.ops.group_norm_backward(dy, x, groups, weight if more else None)
        wanted = normalize_backward(dy4, x4, axes, w)
        assert_within(in_groups(found[0], groups), wanted.dx, "dx")
        assert_sums_within(found[1].reshape(w.shape), wanted.products, (0, 1), "dweight")
        assert_sums_within(found[2].reshape(w.shape), Result(dy4 * 1.0, 64 * u * abs(dy4)), (0, 1), "dbias")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "last"),
    [((5, 7), (7,)), ((4, 3, 10), (10,)), ((4, 3, 10), (3, 10)), ((2, 3, 4, 5), (3, 4, 5)),
     ((2, 3, 4, 5), (5,)), ((17,), (17,)), ((300, 100), (100,)), ((3, 2, 768), (768,)), ((6, 6, 1), (1,))],
)  # fmt: skip
def test_layer_norm(isa: str, shape: tuple[int, ...], last: tuple[int, ...], dtype: Any) -> None:
    x, dy = drawn(shape, dtype, 3.0), drawn(shape, dtype, seed=1)
    rng = np.random.default_rng(2)
    weight, bias = rng.uniform(0.5, 2, last).astype(dtype), rng.standard_normal(last).astype(dtype)
    axes = tuple(range(len(shape) - len(last), len(shape)))
    others = tuple(range(len(shape) - len(last)))
    for more in ({"shape": last}, {"weight": weight, "bias": bias}, {"weight": weight}, {"bias": bias}):
        y = gm.ops.layer_norm(x, **more)
        wanted = normalize(x, axes, more.get("weight", 1.0), more.get("bias", 0.0))
        assert_within(y, wanted, str(list(more)))
    wanted_grad = normalize_backward(dy, x, axes, weight)
    dx, dweight, dbias = gm.ops.layer_norm_backward(dy, x, weight)
    assert_within(dx, wanted_grad.dx, "dx")
    assert_sums_within(dweight, wanted_grad.products, others, "dweight")
    np.testing.assert_allclose(dbias, dy.sum(axis=others, dtype=np.float64), rtol=1e-4, atol=1e-4)
    if len(last) == 1:
        np.testing.assert_array_equal(gm.ops.layer_norm(x), gm.ops.layer_norm(x, shape=last[0]))


def test_special_cases_agree() -> None:
    """Layers are groups of one pixel; groups of one channel are a batch of one sample."""
    x = drawn((6, 20), np.float64)
    np.testing.assert_array_equal(gm.ops.group_norm(x, 1), gm.ops.layer_norm(x))
    image = drawn((1, 5, 6, 4), np.float64)
    np.testing.assert_allclose(
        gm.ops.group_norm(image, 4), gm.ops.batch_norm(image)[0], rtol=1e-12, atol=1e-13
    )


# -- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 1, 2, 6])
def test_backward_is_the_derivative(isa: str, groups: int | None) -> None:
    x, dy = drawn((3, 2, 3, 6), np.float64), drawn((3, 2, 3, 6), np.float64, seed=1)
    weight, bias = factors(6, np.float64)

    def value() -> float:
        if groups is None:
            return float((gm.ops.batch_norm(x, weight, bias)[0] * dy).sum())
        return float((gm.ops.group_norm(x, groups, weight, bias) * dy).sum())

    found = (
        gm.ops.batch_norm_backward(dy, x, weight)
        if groups is None
        else gm.ops.group_norm_backward(dy, x, groups, weight)
    )
    for grad, at in zip(found, (x, weight, bias), strict=True):
        np.testing.assert_allclose(grad, differences(value, at), RTOL, ATOL)


# -- threads, layouts, out -----------------------------------------------------------------------------------


def everything(shape: tuple[int, ...], groups: int, dtype: Any) -> list[Array]:
    x, dy = drawn(shape, dtype, 10.0), drawn(shape, dtype, seed=1)
    weight, bias = factors(shape[-1], dtype)
    return [
        *gm.ops.batch_norm(x, weight, bias), *gm.ops.batch_norm_backward(dy, x, weight),
        gm.ops.group_norm(x, groups, weight, bias), *gm.ops.group_norm_backward(dy, x, groups, weight),
        gm.ops.layer_norm(x, weight, bias), *gm.ops.layer_norm_backward(dy, x, weight),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups"), [((33, 70, 64), 8), ((2100, 100), 5), ((5, 9000, 3), 3)])
def test_threads_do_not_change_a_bit(isa: str, shape: tuple[int, ...], groups: int, dtype: Any) -> None:
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            results.add(tuple(array.tobytes() for array in everything(shape, groups, dtype)))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


CALLS: dict[str, Callable[..., Array]] = {
    "batch": lambda x, **more: gm.ops.batch_norm(x, **more)[0],
    "group": lambda x, **more: gm.ops.group_norm(x, 3, **more),
    "layer": lambda x, **more: gm.ops.layer_norm(x, **more),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_memory_and_any_out(name: str) -> None:
    call, x = CALLS[name], drawn((2, 4, 5, 6), np.float32)
    want = call(x)
    for view in layouts_in_memory(x):
        np.testing.assert_array_equal(call(view), want)
    for out in layouts_in_memory(np.empty_like(x)):
        if out.flags.writeable:
            assert call(x, out=out) is out
            np.testing.assert_array_equal(out, want)
    over = x.copy()
    call(over, out=over)
    np.testing.assert_array_equal(over, want)
    assert call(x.astype(np.float16)).dtype == np.float64
    frozen = np.empty_like(x)
    frozen.flags.writeable = False
    for bad, error in ((np.empty((2, 4, 5)), gm.DTypeError), (np.empty((2, 4), np.float32), gm.ShapeError),
                       (frozen, ValueError)):  # fmt: skip
        with pytest.raises(error, match="out"):
            call(x, out=bad)


@pytest.mark.parametrize("name", ["batch", "group"])
def test_channels_first(name: str) -> None:
    call, x, dy = CALLS[name], drawn((2, 4, 5, 6), np.float32), drawn((2, 4, 5, 6), np.float32, seed=1)
    want, first = call(x), channels_first(x)
    np.testing.assert_array_equal(call(first, layout="channels_first"), channels_first(want))
    out = np.empty_like(first)
    assert call(first, out=out, layout="channels_first") is out
    np.testing.assert_array_equal(out, channels_first(want))
    rows = x.reshape(-1, 6)
    np.testing.assert_array_equal(call(rows, layout="channels_first"), call(rows))
    backward: Callable[..., Any] = (
        gm.ops.batch_norm_backward
        if name == "batch"
        else lambda dy, x, **more: gm.ops.group_norm_backward(dy, x, 3, **more)
    )
    dx, *rest = backward(dy, x)
    dx_first, *rest_first = backward(channels_first(dy), first, layout="channels_first")
    np.testing.assert_array_equal(dx_first, channels_first(dx))
    for a, b in zip(rest, rest_first, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="layout"):
        call(x, layout="first")


def test_nothing_to_normalize() -> None:
    empty = np.empty((0, 5, 6), np.float32)
    assert gm.ops.group_norm(empty, 2).shape == gm.ops.layer_norm(empty).shape == (0, 5, 6)
    dx, dweight, dbias = gm.ops.group_norm_backward(empty, empty, 2)
    assert dx.shape == (0, 5, 6) and not dweight.any() and not dbias.any()
    assert not gm.ops.layer_norm_backward(empty, empty)[1].any()
    with pytest.raises(gm.ShapeError, match="no mean"):
        gm.ops.batch_norm(empty)


def test_numbers_that_are_not_finite_stay_in_their_own_group() -> None:
    x = drawn((3, 4, 6), np.float32)
    x[1, 2, 3] = np.nan
    broken = np.isnan(gm.ops.group_norm(x, 2))
    assert broken[1, :, 3:].all() and broken.sum() == 4 * 3
    assert np.isnan(gm.ops.layer_norm(x)[1, 2]).all()
    assert np.isnan(gm.ops.layer_norm(x)).sum() == 6
    y, mean, var = gm.ops.batch_norm(x)
    assert np.isnan(y[..., 3]).all() and np.isnan(y).sum() == 12
    assert np.isnan(mean[3]) and np.isnan(var[3]) and np.isnan(mean).sum() == 1


# -- PyTorch -------------------------------------------------------------------------------------------------


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, dy = drawn((4, 5, 3, 6), np.float64, 2.0), drawn((4, 5, 3, 6), np.float64, seed=1)
    weight, bias = factors(6, np.float64)

    def theirs(function: Callable[..., Any], turn: bool, last: Array, more: Array) -> list[Array]:
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, last, more)]
        y = function(leaves[0].movedim(3, 1) if turn else leaves[0], *leaves[1:])
        y = y.movedim(1, 3) if turn else y
        y.backward(torch.tensor(dy))
        return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    full, full_bias = (np.broadcast_to(a, (3, 6)).copy() for a in (weight, bias))
    for found, wanted in [
        (
            [gm.ops.batch_norm(x, weight, bias)[0], *gm.ops.batch_norm_backward(dy, x, weight)],
            theirs(lambda x, w, b: functional.batch_norm(x, None, None, w, b, True), True, weight, bias),
        ),
        (
            [gm.ops.group_norm(x, 3, weight, bias), *gm.ops.group_norm_backward(dy, x, 3, weight)],
            theirs(lambda x, w, b: functional.group_norm(x, 3, w, b), True, weight, bias),
        ),
        (
            [gm.ops.layer_norm(x, full, full_bias), *gm.ops.layer_norm_backward(dy, x, full)],
            theirs(lambda x, w, b: functional.layer_norm(x, (3, 6), w, b), False, full, full_bias),
        ),
    ]:
        for ours, his in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, his, rtol=1e-10, atol=1e-12)


# -- bad input -----------------------------------------------------------------------------------------------

X = np.zeros((4, 3, 6))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gm.ops.batch_norm(np.zeros(3)), gm.ShapeError, "batch_norm: x has shape (3,)"),
        (lambda: gm.ops.batch_norm(np.zeros((3, 0))), gm.ShapeError, "batch_norm: x has shape (3, 0)"),
        (lambda: gm.ops.batch_norm(X, np.ones(5)), gm.ShapeError, "weight has shape (5,), not (6,)"),
        (lambda: gm.ops.batch_norm(X, bias=np.ones((6, 1))), gm.ShapeError, "bias has shape (6, 1)"),
        (lambda: gm.ops.batch_norm(X, mean=np.ones(6)), ValueError, "only mean is given"),
        (lambda: gm.ops.batch_norm(X, var=np.ones(6)), ValueError, "only var is given"),
        (lambda: gm.ops.batch_norm(X, eps=0), ValueError, "batch_norm: eps is 0"),
        (lambda: gm.ops.batch_norm(X, eps="1"), TypeError, "batch_norm: eps"),
        (lambda: gm.ops.batch_norm([[1j]]), gm.DTypeError, "batch_norm: x"),
        (lambda: gm.ops.batch_norm_backward(X[1:], X), gm.ShapeError, "dy has shape (3, 3, 6), not"),
        (lambda: gm.ops.group_norm(X, 4), ValueError, "groups is 4, which does not divide 6 channels"),
        (lambda: gm.ops.group_norm(X, 0), ValueError, "group_norm: groups is 0"),
        (lambda: gm.ops.group_norm(X, 1.5), TypeError, "group_norm: groups must be an integer"),
        (lambda: gm.ops.group_norm(X, 2, eps=-1.0), ValueError, "group_norm: eps is -1"),
        (lambda: gm.ops.group_norm(np.zeros(6), 2), gm.ShapeError, "group_norm: x has shape (6,)"),
        (lambda: gm.ops.group_norm_backward(X, X, 4), ValueError, "group_norm_backward: groups is 4"),
        (lambda: gm.ops.layer_norm(X, shape=5), gm.ShapeError, "its last axes must be (5,)"),
        (lambda: gm.ops.layer_norm(X, shape=(4, 4, 3, 6)), gm.ShapeError, "last axes must be (4, 4, 3, 6)"),
        (lambda: gm.ops.layer_norm(np.zeros((2, 0))), gm.ShapeError, "layer_norm: x has shape (2, 0)"),
        (lambda: gm.ops.layer_norm(1.0), gm.ShapeError, "layer_norm: x has shape ()"),
        (lambda: gm.ops.layer_norm(X, np.ones(6), np.ones((3, 6))), gm.ShapeError, "bias has shape (3, 6)"),
        (lambda: gm.ops.layer_norm(X, eps=float("nan")), ValueError, "layer_norm: eps is nan"),
        (lambda: gm.ops.layer_norm_backward(X[:2], X), gm.ShapeError, "dy has shape (2, 3, 6)"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
