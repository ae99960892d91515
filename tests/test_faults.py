"""What users of a numeric library run into, by case number: arguments, steps that fail, values and types.

The cases of GEMM alone (1-4, 19, 20) are in test_gemm*.py, those of processes, memory, files and threads in
test_faults_system.py, more of files in test_safetensors.py.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array, gradients, regression, regressor, weights

import gemmule as gm

# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: gm.Dense(0, 3), "n_in"),
        (lambda: gm.Dense(3, -1), "n_out"),
        (lambda: gm.Dense(3, 2, "rellu"), "leaky_relu"),
        (lambda: gm.Dense(3, 2, init="hee"), "xavier"),
        (lambda: gm.Dropout(1.0), "rate"),
        (lambda: gm.Dropout(-0.1), "rate"),
        (lambda: gm.SGD(-1.0), "lr"),
        (lambda: gm.SGD(float("nan")), "lr"),
        (lambda: gm.SGD(0.1, momentum=-0.5), "momentum"),
        (lambda: gm.Adam(betas=(1.0, 0.999)), "betas"),
    ],
)
def test_fault_5_bad_sizes_and_settings_name_the_argument(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def fit_case(**changes: Any) -> dict[str, Any]:
    x, y = regression()
    return {"X": x, "y": y, "loss": "mse", "epochs": 2, "batch_size": 32, **changes}


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (fit_case(X=np.ones((96, 4))), gm.ShapeError),
        (fit_case(X=np.ones((95, 5))), gm.ShapeError),
        (fit_case(y=np.ones((96, 3))), gm.ShapeError),
        (fit_case(y=np.ones(96)), gm.ShapeError),
        (fit_case(y=np.ones((96, 1))), gm.ShapeError),
        (fit_case(X=np.ones((0, 5)), y=np.ones((0, 2))), ValueError),
        (fit_case(y=np.full(96, 2), loss="cross_entropy"), ValueError),
        (fit_case(y=np.full(96, -1), loss="cross_entropy"), ValueError),
        (fit_case(y=np.full(96, 0.5), loss="cross_entropy"), (ValueError, TypeError)),
        (fit_case(loss="mean_square"), ValueError),
        (fit_case(optimizer="sgdd"), ValueError),
        (fit_case(metrics=["acuracy"]), ValueError),
        (fit_case(epochs=-1), ValueError),
        (fit_case(batch_size=0), ValueError),
        (fit_case(validation_split=1.0), ValueError),
        (fit_case(shuffle=np.zeros((2, 95), np.int64)), ValueError),
        (fit_case(shuffle=np.full((2, 96), 96)), ValueError),
    ],
)
def test_fault_6_nothing_is_written_before_all_checks_have_passed(
    arguments: dict[str, Any], kind: Any
) -> None:
    net = regressor()
    before = weights(net), gradients(net)
    with pytest.raises(kind):
        net.fit(**arguments)
    assert (weights(net), gradients(net)) == before


def test_fault_6_messages_name_the_operation_and_both_shapes() -> None:
    net = gm.Network.mlp([784, 256, 10], rng=0)
    with pytest.raises(gm.ShapeError, match=r"785.*784|784.*785"):
        net.predict(np.ones((3, 785), np.float32))
    with pytest.raises(gm.ShapeError, match=r"256.*255|255.*256"):
        gm.Network([gm.Dense(784, 256), gm.Dense(255, 10)])
    with pytest.raises(ValueError, match="cross_entropy"):
        net.fit(np.ones((4, 784)), np.zeros(4, int), loss="crossentropy", epochs=1)


def test_fault_7_sizes_that_overflow_are_refused() -> None:
    for n_in, n_out in [(2**31, 2**31), (2**33, 2**33), (2**62, 2)]:
        with pytest.raises((ValueError, MemoryError, OverflowError)):
            gm.Network([gm.Dense(n_in, n_out)])


# -- steps commit whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [lambda: gm.SGD(0.2, momentum=0.9), lambda: gm.Adam(0.01)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fault_11_a_loss_that_is_not_finite_stops_at_the_last_complete_step(
    optimizer: Callable[[], gm.optim.Optimizer], bad: float
) -> None:
    """Sample 70 is poisoned: epoch 1, batch 3 of 32. The weights are those of training on the 64 before."""
    x, y = regression()
    x[70, 2] = bad
    net, twin = regressor(), regressor()
    with pytest.raises(gm.DivergenceError, match=r"epoch 1\b.*batch 3\b"):
        net.fit(x, y, loss="mse", optimizer=optimizer(), epochs=5, batch_size=32, shuffle=False)
    twin.fit(x[:64], y[:64], loss="mse", optimizer=optimizer(), epochs=1, batch_size=32, shuffle=False)
    assert weights(net) == weights(twin)


def test_fault_11_divergence_keeps_the_last_finite_weights() -> None:
    """A learning rate far too high: the update, not the data, is to blame."""
    x, y = regression()
    net = gm.Network([gm.Dense(5, 2)], rng=0)
    with pytest.raises(gm.DivergenceError) as caught:
        net.fit(x, y, loss="mse", optimizer=gm.SGD(50.0), epochs=500, batch_size=96, shuffle=False)
    found = re.search(r"epoch (\d+)", str(caught.value))
    assert found is not None
    assert all(np.isfinite(p).all() for _, p in net.named_parameters())
    twin = gm.Network([gm.Dense(5, 2)], rng=0)
    twin.fit(x, y, loss="mse", optimizer=gm.SGD(50.0), epochs=int(found[1]) - 1, batch_size=96, shuffle=False)
    assert weights(net) == weights(twin)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.usefixtures("ctrl_c")
def test_fault_12_ctrl_c_stops_fit_after_a_complete_step() -> None:
    """The contract is 200 ms, but under a sanitizer on a busy machine one step may take a second: what fails
    here is an answer that waits for many. The weights must equal those after some whole number of steps."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2048, 256)).astype(np.float32)
    y = rng.standard_normal((2048, 10)).astype(np.float32)

    def build() -> gm.Network:
        return gm.Network.mlp([256, 512, 512, 10], activation="relu", rng=3)

    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    net, timer = build(), threading.Timer(0.4, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, loss="mse", optimizer=gm.SGD(1e-3), epochs=10**6, batch_size=2048, shuffle=False)
    answered = time.monotonic()
    timer.join()
    assert answered - sent[0] < 20

    twin, optimizer, target = build(), gm.SGD(1e-3), weights(net)
    for _ in range(1000):
        if weights(twin) == target:
            break
        twin.fit(x, y, loss="mse", optimizer=optimizer, epochs=1, batch_size=2048, shuffle=False)
    else:
        pytest.fail("the weights are not those of a whole number of steps")
    net.fit(x, y, loss="mse", epochs=1)  # and it can go on


@pytest.mark.parametrize("optimizer", [gm.SGD(0.1), gm.SGD(0.1, momentum=0.9), gm.Adam(), gm.AdamW()])
def test_fault_11_a_step_from_a_bad_gradient_changes_nothing(optimizer: gm.optim.Optimizer) -> None:
    net = regressor()
    net[1].bias.grad[3] = np.nan
    before = weights(net)
    with pytest.raises(gm.DivergenceError):
        optimizer.step(net)
    assert weights(net) == before
    net.zero_grad()
    net[0].weight.grad[...] = 1
    optimizer.step(net)  # no NaN stayed in the optimizer either
    assert all(np.isfinite(p).all() for _, p in net.named_parameters())


# -- values and types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fault_24_denormals_are_kept(isa: str, dtype: type) -> None:
    """No kernel flushes them to zero, and none leaves the processor in a mode that does."""
    tiny = np.finfo(dtype).tiny
    x = np.array([[tiny / 2, -tiny / 4, tiny / 8, -tiny / 1024]], dtype)
    assert (x != 0).all()
    np.testing.assert_array_equal(gm.ops.gemm(x, np.eye(4, dtype=dtype)), x)
    np.testing.assert_array_equal(gm.ops.gemm(x.T, np.ones((1, 40), dtype)), np.repeat(x.T, 40, axis=1))
    net = gm.Network([gm.Dense(4, 4, "leaky_relu")], dtype=np.dtype(dtype).name, rng=0)
    net[0].weight = np.eye(4)
    positive = abs(x)
    np.testing.assert_array_equal(net.predict(positive), positive)
    net.fit(positive, positive, loss="mse", epochs=1)
    assert positive[0, 0] * dtype(0.5) > 0


def test_fault_25_other_real_types_are_converted() -> None:
    net = regressor()
    x = np.arange(-10, 10).reshape(4, 5)
    want = net.predict(x.astype(np.float32))
    for dtype in ("i1", "i4", "i8", "f2", "f8", ">f4", ">f8", ">i2"):
        np.testing.assert_array_equal(net.predict(x.astype(dtype)), want, err_msg=dtype)
    np.testing.assert_array_equal(net.predict(x.tolist()), want)
    np.testing.assert_array_equal(net.predict(x > 0), net.predict((x > 0).astype(np.float32)))
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    np.testing.assert_array_equal(net.predict(read_only), want)


@pytest.mark.parametrize(
    "x",
    [
        np.ones((4, 5), complex),
        np.full((4, 5), "1"),
        np.full((4, 5), 1, object),
        np.full((4, 5), "2026-01-01", "datetime64[D]"),
        np.zeros((4, 5), [("a", "f4")]),
    ],
    ids=["complex", "string", "object", "date", "record"],
)
def test_fault_25_types_without_a_place_here(x: Array) -> None:
    net = regressor()
    before = weights(net)
    for call in (
        lambda: net.predict(x),
        lambda: net.forward(x),
        lambda: net.fit(x, np.ones((4, 2)), loss="mse", epochs=1),
        lambda: gm.ops.gemm(x, x.T),
    ):
        with pytest.raises(TypeError, match=re.escape(str(x.dtype))):
            call()
    assert weights(net) == before


def test_fault_25_a_finite_value_that_overflows_float32_is_an_error() -> None:
    net = regressor()
    x = np.ones((4, 5))
    x[2, 3] = 1e300
    with pytest.raises(ValueError, match="float32"):
        net.predict(x)
    x[2, 3] = np.inf  # infinite already: nothing is lost
    net.predict(x)
