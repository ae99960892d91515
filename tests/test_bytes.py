"""uint8 features: kept as they are, and scaled where a batch is gathered."""

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, gradients, run_python, weights

import gemmule as gm
from gemmule import _core

SCALE = 1 / 255


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 255, 784])
@pytest.mark.parametrize("scale", [1.0, SCALE, 3e-5])
def test_the_kernel_rounds_once(isa: str, dtype: str, count: int, scale: float) -> None:
    """Bytes are exact in both types: the product of one with the scale, rounded to the type, differs from the
    exact one by at most eps / 2 of it."""
    x = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    out = np.empty(count, dtype)
    _core.scale_bytes(x, scale, out)
    np.testing.assert_array_equal(out, x.astype(dtype) * np.dtype(dtype).type(scale))
    exact = x.astype(np.longdouble) * np.longdouble(np.dtype(dtype).type(scale))
    assert (np.abs(out - exact) <= np.finfo(dtype).eps / 2 * exact).all()


def data(samples: int = 300, features: int = 50) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (samples, features)).astype(np.uint8), rng.integers(0, 10, samples)


def in_advance(x: Array, dtype: str, scale: float = SCALE) -> Array:
    return x.astype(dtype) * np.dtype(dtype).type(scale)


# Listed samples, gathered ones (256 float64 are 2 KB, and 300 outputs are many), and no working copy.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("features", "width", "batch"), [(50, 33, 64), (256, 20, 32), (50, 300, 64), (50, 33, 8)]
)
@pytest.mark.parametrize("scale", [None, SCALE])
def test_the_bits_of_reals_converted_in_advance(
    isa: str, dtype: str, features: int, width: int, batch: int, scale: float | None
) -> None:
    x, y = data(features=features)
    z = in_advance(x, dtype, scale or 1.0)
    nets = [gm.Network.mlp([features, width, 10], rng=1, dtype=dtype) for _ in range(2)]
    options: dict[str, Any] = {"loss": "cross_entropy", "epochs": 2, "batch_size": batch, "metrics": ["f1"]}
    found = nets[0].fit(x, y, **options, validation_data=(x[:70], y[:70]), scale=scale)
    wanted = nets[1].fit(z, y, **options, validation_data=(z[:70], y[:70]))
    assert weights(nets[0]) == weights(nets[1])
    assert gradients(nets[0]) == gradients(nets[1])
    assert dict(found) == dict(wanted)
    np.testing.assert_array_equal(nets[0].predict(x), nets[1].predict(z))
    np.testing.assert_array_equal(nets[0].predict(x[3]), nets[1].predict(z[3]))
    np.testing.assert_array_equal(nets[0].predict(x[::2, ::-1]), nets[1].predict(z[::2, ::-1]))
    np.testing.assert_array_equal(nets[0].forward(x), nets[1].forward(z))
    assert nets[0].evaluate(x, y) == pytest.approx(nets[1].evaluate(z, y), rel=1e-12)


def test_the_scale_is_saved_and_reals_are_taken_as_they_are(tmp_path: Path) -> None:
    x, y = data()
    net = gm.Network.mlp([50, 20, 10], rng=1)
    net.fit(x, y, loss="cross_entropy", scale=SCALE)
    assert net.preprocessing == {"uint8_scale": SCALE}
    net.save(tmp_path / "net")
    loaded = gm.load(tmp_path / "net")
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    np.testing.assert_array_equal(loaded.predict(in_advance(x, "float32")), net.predict(x))
    loaded.fit(x, y, epochs=2, optimizer=gm.SGD(0.1))  # goes on with the scale
    again = gm.load(tmp_path / "net")
    again.fit(in_advance(x, "float32"), y, epochs=2, optimizer=gm.SGD(0.1))
    assert weights(loaded) == weights(again)


def test_images_of_any_shape_and_a_split() -> None:
    x, y = data(300, 48)
    images = x.reshape(300, 4, 12)
    nets = [gm.Network([gm.Flatten(), gm.Dense(48, 16, "relu"), gm.Dense(16, 10)], rng=1) for _ in range(2)]
    for net, given, scale in ((nets[0], images, SCALE), (nets[1], in_advance(images, "float32"), None)):
        net.fit(given, y, loss="cross_entropy", batch_size=16, validation_split=0.2, scale=scale, epochs=2)
    assert weights(nets[0]) == weights(nets[1])
    assert nets[0].history is not None and nets[1].history is not None
    assert dict(nets[0].history) == dict(nets[1].history)


def test_a_set_of_bytes_is_not_converted_as_a_whole() -> None:
    x, y = data(20000, 200)
    net = gm.Network.mlp([200, 16, 10], rng=1)
    net.fit(x[:100], y[:100], loss="cross_entropy", scale=SCALE)
    tracemalloc.start()
    net.fit(x, y, loss="cross_entropy", batch_size=64, scale=SCALE)
    net.predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # float32 would take 16 MB; predict converts 4 MB at a time and returns 0.8 MB


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_beyond_the_arrays_is_touched(isa: str) -> None:
    done = run_python(f"import guarded; guarded.scale_bytes({isa!r})")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_none(scale: float) -> None:
    x, y = data()
    net = gm.Network.mlp([50, 20, 10], rng=1)
    before = weights(net)
    with pytest.raises(ValueError, match="scale"):
        net.fit(x, y, loss="cross_entropy", scale=scale)
    assert weights(net) == before
    assert net.preprocessing == {}


def test_weights_of_bytes() -> None:
    """In pieces of 4 MB; the first of them weighs nothing."""
    x, y = data(12_000, 200)
    weight = np.random.default_rng(1).random(12_000)
    weight[:6_000] = 0
    z = in_advance(x, "float64")
    nets = [gm.Network.mlp([200, 8, 10], rng=1, dtype="float64") for _ in range(2)]
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 256, "metrics": ["accuracy", "f1"]}
    held = slice(3_000, 9_000)
    found = nets[0].fit(
        x, y, **options, sample_weight=weight, validation_data=(x[held], y[held], weight[held]), scale=SCALE
    )
    wanted = nets[1].fit(
        z, y, **options, sample_weight=weight, validation_data=(z[held], y[held], weight[held])
    )
    assert weights(nets[0]) == weights(nets[1])
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12)
    scores = nets[0].evaluate(x, y, sample_weight=weight), nets[1].evaluate(z, y, sample_weight=weight)
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)


def test_a_scale_of_something_else() -> None:
    x, y = data()
    net = gm.Network.mlp([50, 20, 10], rng=1)
    with pytest.raises(gm.DTypeError, match="scale is for X of uint8, X has dtype float32"):
        net.fit(x.astype(np.float32), y, loss="cross_entropy", scale=SCALE)
    with pytest.raises(TypeError, match="scale"):
        net.fit(x, y, loss="cross_entropy", scale="1/255")  # type: ignore[arg-type]
    net.preprocessing["uint8_scale"] = "large"
    with pytest.raises(TypeError, match="uint8_scale"):
        net.predict(x)
