"""Upsample, AdaptiveAvgPool2d, ZeroPad2d and Dropout2d as layers: gradients, shapes, descriptions, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import check_network, points
from image_cases import channels_first
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
LAYERS: list[Callable[[], gm.Layer]] = [
    lambda: gm.Upsample(2),
    lambda: gm.Upsample((1.5, 0.7)),
    lambda: gm.Upsample(2, mode="bilinear"),
    lambda: gm.Upsample((0.5, 2.5), mode="bilinear", name="up"),
    lambda: gm.Upsample(size=(7, 3), mode="bilinear", align_corners=True),
    lambda: gm.Upsample(size=5),
    lambda: gm.AdaptiveAvgPool2d((2, 3)),
    lambda: gm.AdaptiveAvgPool2d(7),
    lambda: gm.ZeroPad2d((0, 1, 2, 0)),
    lambda: gm.ZeroPad2d(1, name="frame"),
]


def network(shape: tuple[int, ...], *layers: gm.Layer, **more: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **more})


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients(isa: str, layer: Callable[[], gm.Layer]) -> None:
    """Each between two others, so that its own input's gradient is needed too."""
    net = network((4, 5, 2), gm.Conv2d(2, 2, 1, "tanh"), layer(), gm.Flatten(), gm.Dense(None, 3))
    check_network(net, points((4, 4, 5, 2)), "cross_entropy", np.array([0, 2, 1, 2]))


def test_gradients_of_dropout(isa: str) -> None:
    net = network(
        (4, 5, 3), gm.Conv2d(3, 6, 1, "tanh"), gm.Dropout2d(0.4), gm.Conv2d(6, 4, 2), gm.Dropout2d(0.3),
        gm.Flatten(), gm.Dense(None, 3),
    )  # fmt: skip
    check_network(net, points((6, 4, 5, 3)), "cross_entropy", np.array([0, 2, 1, 2, 0, 1]), repeatable=False)


def function_of(layer: gm.Layer, x: Array) -> Array:
    """The same by `gm.ops`."""
    if isinstance(layer, gm.ZeroPad2d):
        return gm.ops.zero_pad2d(x, layer.padding)
    if isinstance(layer, gm.AdaptiveAvgPool2d):
        return gm.ops.adaptive_avg_pool2d(x, layer.size)
    assert isinstance(layer, gm.Upsample)
    return gm.ops.upsample2d(x, layer.scale, layer.size, layer.mode, layer.align_corners)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_do_what_the_functions_do(
    isa: str, dtype: str, layer: Callable[[], gm.Layer], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((6, 4, 5, 3)).astype(dtype)
    net = network((4, 5, 3), layer(), dtype=dtype)
    want = function_of(net[0], x)
    assert net.output_shape() == want.shape[1:]
    np.testing.assert_array_equal(net.predict(x), want)
    np.testing.assert_array_equal(net.trace(x)[f"{net[0].name or 0}.h"], want)
    net.save(tmp_path / "net.safetensors")
    loaded = gm.load(tmp_path / "net.safetensors")
    assert repr(loaded) == repr(net)
    np.testing.assert_array_equal(loaded.predict(x), want)
    turned = network((3, 4, 5), layer(), dtype=dtype, layout="channels_first")
    np.testing.assert_array_equal(turned.predict(channels_first(x)), channels_first(want))


def test_dropout_of_channels(isa: str, tmp_path: Path) -> None:
    """In training alone, on images and on sequences, a number of its own among the network's dropouts."""
    x = np.random.default_rng(1).standard_normal((50, 3, 4, 8)).astype(np.float32)
    net = gm.Network([gm.Dropout(0.1), gm.Dropout2d(0.5)], input_shape=(3, 4, 8), rng=7)
    np.testing.assert_array_equal(net.predict(x), x)
    h = net.forward(x, training=True)
    want = gm.ops.dropout2d(gm.ops.dropout(x, 0.1, rng=7), 0.5, rng=7, layer=1)
    np.testing.assert_array_equal(h, want)
    dx = gm.ops.dropout(gm.ops.dropout2d(h, 0.5, rng=7, layer=1), 0.1, rng=7)
    np.testing.assert_array_equal(net.backward(h), dx)
    net.save(tmp_path / "net.safetensors")
    assert repr(gm.load(tmp_path / "net.safetensors")[1]) == "Dropout2d(0.5)"
    rows = gm.Network([gm.Dropout2d(0.5)], input_shape=(12, 8), rng=3)
    flat = x.reshape(50, 12, 8)
    mask = gm.ops.dropout(np.ones((50, 8), np.float32), 0.5, rng=3)
    np.testing.assert_array_equal(rows.forward(flat, training=True), flat * mask[:, None])


def test_training(threads: int) -> None:
    """The same weights for any number of threads, of a network that goes down and up again."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 8, 8, 3)).astype(np.float32)

    def fitted() -> bytes:
        layers = [
            gm.ZeroPad2d(1), gm.Conv2d(3, 8, 3, "relu", stride=2), gm.Dropout2d(0.2), gm.AdaptiveAvgPool2d(3),
            gm.Upsample(size=4, mode="bilinear"), gm.Conv2d(8, 8, 3, "relu", padding=1), gm.Upsample(2),
            gm.Conv2d(8, 3, 3, padding=1),
        ]  # fmt: skip
        net = gm.Network(layers, rng=0, input_shape=(8, 8, 3))
        history = net.fit(x, x, loss="mse", optimizer=gm.Adam(1e-2), epochs=4, batch_size=16)
        assert history["loss"][-1] < history["loss"][0]
        return b"".join(p.tobytes() for p in net.parameters())

    mine = fitted()
    gm.set_num_threads(1)
    assert fitted() == mine


def test_accumulated_batches_draw_as_one_does() -> None:
    """A sample's channels are dropped by its place in the step, in whatever batch it comes."""
    x = np.random.default_rng(2).standard_normal((32, 3, 3, 4)).astype(np.float32)
    results = []
    for batch, accumulate in ((16, 1), (4, 4)):
        net = gm.Network([gm.Conv2d(4, 8, 1), gm.Dropout2d(0.5), gm.GlobalAvgPool2d(), gm.Dense(8, 2)],
                         rng=0, input_shape=(3, 3, 4), dtype="float64")  # fmt: skip
        net.fit(x, x[:, 0, 0, :2], loss="mse", optimizer=gm.SGD(0.1), epochs=1, batch_size=batch,
                accumulate=accumulate, shuffle=False)  # fmt: skip
        results.append(net[0].weight.copy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_description() -> None:
    for layer, text in [
        (gm.Upsample(2), "Upsample(2)"),
        (gm.Upsample((2, 1.5)), "Upsample((2, 1.5))"),
        (gm.Upsample(size=(4, 5), mode="bilinear"), "Upsample(size=(4, 5), mode='bilinear')"),
        (
            gm.Upsample(2, mode="bilinear", align_corners=True, name="u"),
            "Upsample(2, mode='bilinear', align_corners=True, name='u')",
        ),
        (gm.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d(2)"),
        (gm.AdaptiveAvgPool2d((2, 3), name="a"), "AdaptiveAvgPool2d((2, 3), name='a')"),
        (gm.ZeroPad2d(1), "ZeroPad2d(1)"),
        (gm.ZeroPad2d((1, 2)), "ZeroPad2d((1, 2))"),
        (gm.ZeroPad2d((1, 2, 3, 4)), "ZeroPad2d((1, 2, 3, 4))"),
        (gm.Dropout2d(0.25, name="d"), "Dropout2d(0.25, name='d')"),
    ]:
        assert repr(layer) == text
    net = network((4, 5, 2), gm.Upsample(2), gm.ZeroPad2d((1, 0)), gm.Dropout2d(0.5), gm.AdaptiveAvgPool2d(3))
    text = net.summary()
    for shape in ("(N, 8, 10, 2)", "(N, 10, 10, 2)", "(N, 3, 3, 2)"):
        assert shape in text
    assert net.flops() == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.Upsample(), TypeError, "Upsample takes a scale or a size, not neither"),
        (lambda: gm.Upsample(2, 3), TypeError, "Upsample takes a scale or a size, not both"),
        (lambda: gm.Upsample(-1), ValueError, "Upsample: scale is -1"),
        (lambda: gm.Upsample(True), TypeError, "Upsample: scale must be a number"),
        (lambda: gm.Upsample(size=0), ValueError, "Upsample: size is 0"),
        (lambda: gm.Upsample(2, mode="cubic"), ValueError, "Upsample: mode 'cubic'; known: nearest"),
        (lambda: gm.Upsample(2, align_corners=True), ValueError, "Upsample: align_corners is for"),
        (lambda: gm.AdaptiveAvgPool2d(0), ValueError, "AdaptiveAvgPool2d: size is 0"),
        (lambda: gm.AdaptiveAvgPool2d((2, None)), TypeError, "AdaptiveAvgPool2d: size must be an integer"),
        (lambda: gm.ZeroPad2d(-1), ValueError, "ZeroPad2d: padding is -1; it must not be negative"),
        (lambda: gm.ZeroPad2d("same"), TypeError, "ZeroPad2d: padding must be an integer or 2 or 4"),
        (lambda: gm.Dropout2d(1.0), ValueError, "Dropout2d: rate is 1.0; it must be at least 0 and below 1"),
        (lambda: gm.Dropout2d("a"), TypeError, "Dropout2d: rate must be a number"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (gm.Upsample(2), (8, 3), "Upsample: x has shape (N, 8, 3), not (N, H, W, C)"),
        (gm.Upsample(0.1), (8, 12, 3), "Upsample: an image of 8 x 12 pixels, (0.1, 0.1) times as large, has"),
        (gm.Upsample(1e9), (8, 12, 3), "2**30 of them along an axis"),
        (gm.Upsample(size=2**30 - 1), (8, 12, 3), "overflows 64 bits"),
        (gm.AdaptiveAvgPool2d(2), (24,), "AdaptiveAvgPool2d: x has shape (N, 24), not (N, H, W, C)"),
        (gm.ZeroPad2d(2), (24,), "ZeroPad2d: x has shape (N, 24), not (N, H, W, C)"),
        (gm.ZeroPad2d(2**31 - 1), (8, 8, 3), "ZeroPad2d: the output's shape (4294967302, 4294967302, 3)"),
        (gm.Dropout2d(0.5), (24,), "Dropout2d: x has shape (N, 24), not (N, H, W, C) or (N, L, C)"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(layer: gm.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(gm.ShapeError) as caught:
        gm.Network([layer], input_shape=shape)
    assert message in str(caught.value)
