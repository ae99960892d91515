"""`fit` on images that are augmented on the way gives the bits of a fit on images that NumPy augmented
beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augment_reference import Moves
from helpers import Array, gradients, killed_behind, weights
from streams import Store, in_batches

import gemmule as gm
from gemmule import _sources
from gemmule.augment import Augment

HEIGHT, WIDTH = 6, 5
BYTE = 1 / 255
SAMPLES, CLASSES, BATCH, EPOCHS = 100, 4, 16, 2
MOVES = Moves(0.5, 0.25, (2, 1))
AUGMENT = Augment(flip=True, vertical_flip=0.25, crop=(2, 1))


def data(dtype: str = "float32") -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (SAMPLES, HEIGHT, WIDTH, 3))
    y = rng.integers(0, CLASSES, SAMPLES)
    return (x.astype(dtype) if dtype == "uint8" else (x / 255).astype(dtype)), y


def dense(dtype: str, layout: str = "channels_last") -> gm.Network:
    """Its samples are listed, in a working copy."""
    layers = [gm.Flatten(), gm.Dense(None, 40, "relu"), gm.Dropout(0.2), gm.Dense(40, CLASSES)]
    shape = (3, HEIGHT, WIDTH) if layout == "channels_first" else (HEIGHT, WIDTH, 3)
    return gm.Network(layers, input_shape=shape, rng=1, dtype=dtype, layout=layout)


def convolutional(dtype: str, layout: str = "channels_last") -> gm.Network:
    layers = [gm.Conv2d(3, 8, 3, "relu"), gm.Flatten(), gm.Dropout(0.2), gm.Dense(None, CLASSES)]
    shape = (3, HEIGHT, WIDTH) if layout == "channels_first" else (HEIGHT, WIDTH, 3)
    return gm.Network(layers, input_shape=shape, rng=1, dtype=dtype, layout=layout)


def fit(net: gm.Network, x: Any, y: Any = None, **options: Any) -> gm.History:
    options = {"loss": "cross_entropy", "optimizer": gm.Adam(1e-2), "epochs": EPOCHS, **options}
    if y is None:
        return net.fit(x, **options)
    return net.fit(x, y, **{"batch_size": BATCH, "shuffle": False, **options})


def fit_beforehand(
    net: gm.Network, x: Array, y: Array, orders: Array | None = None, accumulate: int = 1, **options: Any
) -> list[float]:
    """`fit` on what NumPy makes of the images, epoch by epoch; the losses."""
    optimizer, losses, per_step = gm.Adam(1e-2), [], BATCH * accumulate
    for epoch in range(EPOCHS):
        order = np.arange(len(x)) if orders is None else orders[epoch]
        parts = [order[i : i + per_step] for i in range(0, len(x), per_step)]
        seen = [MOVES.apply(x[part], net._key, net._step + step) for step, part in enumerate(parts)]
        kept = fit(
            net,
            np.concatenate(seen),
            y[order],
            optimizer=optimizer,
            epochs=1,
            accumulate=accumulate,
            **options,
        )
        losses += kept["loss"]
    return losses


NETWORKS: list[Callable[..., gm.Network]] = [dense, convolutional]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bytes_", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_bits_of_images_augmented_beforehand(
    copying: None, make: Callable[..., gm.Network], dtype: str, bytes_: bool, accumulate: int
) -> None:
    x, y = data("uint8" if bytes_ else dtype)
    options: dict[str, Any] = {"scale": BYTE} if bytes_ else {}
    found, wanted = make(dtype), make(dtype)
    history = fit(found, x, y, augment=AUGMENT, accumulate=accumulate, **options)
    losses = fit_beforehand(wanted, x, y, accumulate=accumulate, **options)
    assert weights(found) == weights(wanted)
    assert gradients(found) == gradients(wanted)
    assert history["loss"] == losses


def test_an_order() -> None:
    """The place in the step counts, not the sample's number."""
    x, y = data()
    orders = np.stack([np.random.default_rng(epoch).permutation(SAMPLES) for epoch in range(EPOCHS)])
    found, wanted = convolutional("float32"), convolutional("float32")
    fit(found, x, y, augment=AUGMENT, shuffle=orders)
    fit_beforehand(wanted, x, y, orders)
    assert weights(found) == weights(wanted)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("bytes_", [False, True])
def test_threads_do_not_change_a_bit(make: Callable[..., gm.Network], bytes_: bool, copying: None) -> None:
    x, y = data("uint8" if bytes_ else "float32")
    nets = []
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        nets.append(make("float32"))
        fit(nets[-1], x, y, augment=AUGMENT, shuffle=True, epochs=3)
    gm.set_num_threads(None)
    assert all(weights(net) == weights(nets[0]) for net in nets[1:])


@pytest.mark.parametrize("bytes_", [False, True])
def test_data_in_blocks(bytes_: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be sliced, batches, mapped files: the same bits."""
    x, y = data("uint8" if bytes_ else "float32")
    monkeypatch.setattr(_sources, "BLOCK", 30 * x[0].nbytes)
    options: dict[str, Any] = {"augment": AUGMENT} | ({"scale": BYTE} if bytes_ else {})
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    nets = [dense("float32") for _ in range(5)]
    fit(nets[0], x, y, **options)
    fit(nets[1], Store(x), Store(y), **options)
    fit(nets[2], in_batches(x, y, BATCH), **options)
    fit(nets[3], mapped, y, **options)
    fit(nets[4], x.astype("float64") if not bytes_ else x, y, **options)
    assert all(weights(net) == weights(nets[0]) for net in nets[1:])


@pytest.mark.parametrize("make", NETWORKS)
def test_channels_first(make: Callable[..., gm.Network]) -> None:
    x, y = data()
    last, first = make("float32"), make("float32", "channels_first")
    fit(last, x, y, augment=AUGMENT)
    fit(first, x.transpose(0, 3, 1, 2), y, augment=AUGMENT)
    assert weights(first) == weights(last)


def test_what_a_layer_sees() -> None:
    """Every batch is what `augment` gives by hand; what is validated is as it was."""
    seen: list[Array] = []

    class Watch(gm.Layer):
        keeps_shape = True

        def forward(self, x: Array) -> Array:
            seen.append(np.array(x))
            return x

        def backward(self, dy: Array) -> Array:
            return dy

    x, y = data()
    net = gm.Network([Watch(), gm.Flatten(), gm.Dense(None, CLASSES)], input_shape=x.shape[1:], rng=3)
    fit(net, x, y, augment=AUGMENT, epochs=1, batch_size=50, validation_data=(x[:7], y[:7]))
    assert len(seen) == 3
    for step in range(2):
        wanted = AUGMENT(x[50 * step : 50 * (step + 1)], rng=3, step=step)
        np.testing.assert_array_equal(seen[step], wanted)
    np.testing.assert_array_equal(seen[2], x[:7])


def test_validation_sees_images_as_they_are() -> None:
    x, y = data()
    for held in ({"validation_data": (x, y)}, {"validation_split": 0.3}):
        history, plain = (
            fit(
                convolutional("float32"), x, y, optimizer=gm.SGD(0.0), metrics=["accuracy"], **held, **options
            )
            for options in ({"augment": AUGMENT}, {})
        )
        for name in ("val_loss", "val_accuracy"):
            assert history[name] == plain[name]
        assert history["loss"] != plain["loss"]
        assert history["loss"][0] != history["loss"][1]  # drawn anew for the second epoch
    assert x.tobytes() == data()[0].tobytes()


def test_nothing_is_changed_by_an_augmentation_of_nothing() -> None:
    x, y = data()
    nets = [dense("float32") for _ in range(2)]
    fit(nets[0], x, y, augment=Augment())
    fit(nets[1], x, y)
    assert weights(nets[0]) == weights(nets[1])


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("writes", [1, 4, 6])
def test_resumed_is_bitwise_uninterrupted(writes: int, stream: bool, tmp_path: Path) -> None:
    """In the middle of an epoch of seven steps, too."""
    x, y = data()
    given = (Store(x), Store(y)) if stream else (x, y)
    path = tmp_path / "fit"

    def run(net: gm.Network, **options: Any) -> gm.Network:
        callbacks = [gm.callbacks.Checkpoint(path, steps=3)]
        fit(net, *given, augment=AUGMENT, shuffle=True, epochs=3, callbacks=callbacks, **options)
        return net

    whole = run(dense("float32"))
    with killed_behind(writes):
        run(dense("float32"))
    resumed = run(dense("float32"), resume=path)
    assert weights(resumed) == weights(whole)


def test_another_augmentation_is_not_gone_on_with(tmp_path: Path) -> None:
    x, y = data()
    path = tmp_path / "fit"
    fit(dense("float32"), x, y, augment=AUGMENT, callbacks=[gm.callbacks.Checkpoint(path)])
    for other in (None, Augment(flip=True)):
        net = dense("float32")
        before = weights(net)
        with pytest.raises(ValueError, match=r"written with augment .*flip=0\.5.*, this fit has"):
            fit(net, x, y, augment=other, resume=path)
        assert weights(net) == before
    fit(dense("float32"), x, y, callbacks=[gm.callbacks.Checkpoint(path)])
    with pytest.raises(ValueError, match="written with augment None, this fit has"):
        fit(dense("float32"), x, y, augment=AUGMENT, resume=path)


# -- bad input -----------------------------------------------------------------------------------------------


def assert_refused(net: gm.Network, kind: type[Exception], words: str, *given: Any, **options: Any) -> None:
    """Nothing is changed then."""
    before, step, loss = weights(net), net._step, net.loss
    with pytest.raises(kind, match=words):
        fit(net, *given, **options)
    assert (weights(net), net._step, net.loss, net.history) == (before, step, loss, None)


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_go_with_fit(stream: bool) -> None:
    x, y = data()
    bytes_, _ = data("uint8")

    def given(images: Array) -> tuple[Any, Any]:
        return (Store(images), Store(y)) if stream else (images, y)

    small = r"moves by up to \({}, {}\) pixels would leave nothing of an image of \(6, 5\)"
    for crop in (5, (6, 0), (0, 9)):
        pair = (crop, crop) if isinstance(crop, int) else crop
        assert_refused(
            dense("float32"), gm.ShapeError, small.format(*pair), *given(x), augment=Augment(crop=crop)
        )
    flat = gm.Network.mlp([90, CLASSES], rng=0)
    assert_refused(
        flat, gm.ShapeError, r"a sample has shape \(90,\); images \(H, W, C\) are due",
        *given(x.reshape(SAMPLES, -1)), augment=Augment(flip=True),
    )  # fmt: skip
    for fill in (0.5, -1, 256):
        assert_refused(
            dense("float32"), ValueError, r"fill is .*uint8 take a whole number of 0\.\.255",
            *given(bytes_), augment=Augment(crop=1, fill=fill),
        )  # fmt: skip
    assert_refused(
        dense("float32"), ValueError, "fill is 1e[+]300, which float32 does not hold",
        *given(x), augment=Augment(crop=1, fill=1e300),
    )  # fmt: skip
    for wrong in (True, "flip", {"flip": 0.5}, Augment):
        assert_refused(
            dense("float32"), TypeError, "augment must be a gemmule.Augment", *given(x), augment=wrong
        )


def test_lbfgs_sees_the_same_each_time() -> None:
    x, y = data()
    assert_refused(
        dense("float32"),
        ValueError,
        "LBFGS.*augment",
        x,
        y,
        optimizer="lbfgs",
        batch_size=None,
        augment=AUGMENT,
    )
