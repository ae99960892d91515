"""Training takes subnormal numbers for zero; what `predict` returns keeps them, and so does everybody else's
arithmetic in the same threads."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import Array

import gemmule as gm

pytestmark = pytest.mark.usefixtures("isa")

# Two numbers of a type whose product is half of its smallest normal number.
FACTORS = {"float32": (2.0**-63, 2.0**-64), "float64": (2.0**-511, 2.0**-512)}


def linear(weight: float, dtype: str) -> gm.Network:
    net = gm.Network([gm.Dense(1, 1, bias=False)], rng=0, dtype=dtype)
    net[0].weight = np.full((1, 1), weight)
    return net


def a_product_is_subnormal(dtype: str) -> bool:
    """Whether NumPy still makes one, in this thread."""
    a, b = (np.array([factor], dtype) for factor in FACTORS[dtype])
    product = float((a * b)[0])
    return 0 < product < float(np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", FACTORS)
def test_predict_keeps_them(dtype: str) -> None:
    a, b = FACTORS[dtype]
    out = linear(a, dtype).predict(np.full((3, 1), b, dtype))
    np.testing.assert_array_equal(out, np.full((3, 1), a * b, dtype))
    assert float(out[0, 0]) > 0


# dW = x dz: of one sample of half_mse with target t and weight 0, dz = -t.
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", FACTORS)
def test_fit_takes_gradients_so_small_for_zero(dtype: str, batch: int) -> None:
    a, b = FACTORS[dtype]
    x, y = np.full((batch, 1), a, dtype), np.full((batch, 1), b, dtype)
    for times, moves in ((1.0, False), (8.0, True)):
        net = linear(0.0, dtype)
        net.fit(times * x, y, loss="half_mse", optimizer=gm.SGD(1.0), batch_size=batch, progress=False)
        assert (float(net[0].weight[0, 0]) != 0) == moves


# An update that would leave a subnormal weight leaves 0.
@pytest.mark.parametrize("form", ["stepped", "riding", "copied"])
@pytest.mark.parametrize("dtype", FACTORS)
def test_fit_takes_weights_so_small_for_zero(
    dtype: str, form: str, force_training: Callable[[str], None]
) -> None:
    force_training(form)
    tiny = float(np.finfo(dtype).tiny)
    net = linear(1.5 * tiny, dtype)
    x, y = np.zeros((32, 1), dtype), np.zeros((32, 1), dtype)
    optimizer = gm.SGD(0.75, weight_decay=1.0)  # a quarter of the weight would stay
    net.fit(x, y, loss="mse", optimizer=optimizer, batch_size=32, progress=False)
    assert float(net[0].weight[0, 0]) == 0


@pytest.mark.parametrize("dtype", FACTORS)
def test_the_calling_thread_computes_as_before(dtype: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((512, 64)), rng.standard_normal((512, 8))
    net = gm.Network.mlp([64, 64, 8], activation="relu", rng=0, dtype=dtype)
    net.fit(x, y, loss="mse", optimizer="sgd", batch_size=256, progress=False)
    assert a_product_is_subnormal(dtype)
    net.forward(x, training=True)
    net.backward(np.ones((512, 8)))
    gm.SGD(0.1).step(net)
    assert a_product_is_subnormal(dtype)


class Watch(gm.Layer):
    """The identity, which looks at the arithmetic around it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: Array) -> Array:
        self.seen.append(a_product_is_subnormal("float32"))
        return x

    def backward(self, dy: Array) -> Array:
        self.seen.append(a_product_is_subnormal("float32"))
        return dy


def test_layers_written_in_python_compute_as_elsewhere() -> None:
    rng = np.random.default_rng(0)
    watch = Watch()
    net = gm.Network([gm.Dense(3, 4), watch, gm.Dense(4, 1)], rng=0)
    net.fit(rng.random((8, 3)), rng.random((8, 1)), loss="mse", batch_size=4, epochs=2, progress=False)
    assert len(watch.seen) >= 8
    assert all(watch.seen)
