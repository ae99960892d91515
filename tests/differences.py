"""Gradients by float64 central differences."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]

# Central differences err by STEP^2 f''' / 6 + ulp(f) / STEP, about 1e-12 + 1e-10 for quantities of order one.
# A wrong term shows as a relative error of order one, so 1e-3 leaves room and hides nothing.
STEP, RTOL, ATOL = 1e-6, 1e-3, 1e-5


def differences(f: Callable[[], float], at: Array) -> Array:
    """df/dat, element by element: `at` is written in place, and left as it was."""
    grad = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        before = at[index]
        at[index] = before + STEP
        above = f()
        at[index] = before - STEP
        below = f()
        at[index] = before
        grad[index] = (above - below) / (2 * STEP)
    return grad


def check_network(net: gm.Network, x: Array, loss: str, target: Array, repeatable: bool = True) -> None:
    """Backward against differences, by every parameter and by the input.

    `repeatable`: two forwards give the same values. Where they do not (dropout), each runs on a copy of the
    network, which stands at the same place of the random stream.
    """
    function = getattr(gm.losses, loss)

    def value() -> float:
        runner = net if repeatable else copy.deepcopy(net)
        return float(function(runner.forward(x, training=True), target)[0])

    numeric = {name: differences(value, p) for name, p in net.named_parameters()}
    numeric_dx = differences(value, x)
    net.zero_grad()
    _, dz = function(net.forward(x, training=True), target)
    dx = net.backward(dz)
    for name, p in net.named_parameters():
        np.testing.assert_allclose(p.grad, numeric[name], RTOL, ATOL, err_msg=name)
    np.testing.assert_allclose(dx, numeric_dx, RTOL, ATOL)


def points(shape: tuple[int, ...], seed: int = 0, kinks: tuple[float, ...] = (0.0,)) -> Array:
    """Normal deviates at least 10 steps away from every kink."""
    x = np.random.default_rng(seed).standard_normal(shape) * 2
    for kink in kinks:
        near = abs(x - kink) < 10 * STEP
        x[near] = kink + 10 * STEP
    return x
