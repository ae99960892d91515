"""Networks of images: trained, kept in files, channels-first, the ready models."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import weights
from image_cases import channels_first
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]


# -- fit, files, copies --------------------------------------------------------------------------------------


def digits() -> tuple[Array, Array]:
    X, y = gm.datasets.digits(as_images=True)
    return X[:300], y[:300]


def small(**options: Any) -> gm.Network:
    layers = [
        gm.Conv2d(1, 8, 3, "relu", padding="same"), gm.MaxPool2d(2),
        gm.Conv2d(8, 16, 3, "tanh", stride=2, groups=2), gm.AvgPool2d(1),
        gm.Flatten(), gm.Dropout(0.1), gm.Dense(None, 10),
    ]  # fmt: skip
    shape = (1, 8, 8) if options.get("layout") == "channels_first" else (8, 8, 1)
    return gm.Network(layers, input_shape=shape, **{"rng": 0, **options})


def test_fit_learns(isa: str) -> None:
    X, y = digits()
    net = small()
    history = net.fit(X, y, loss="cross_entropy", optimizer=gm.Adam(5e-3), epochs=15, metrics=["accuracy"])
    assert history["accuracy"][-1] > 0.9
    assert net.evaluate(X, y)["accuracy"] > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_a_bit(isa: str, dtype: str) -> None:
    X, y = digits()
    results = set()
    try:
        for count in (1, 2, 3, 7):
            gm.set_num_threads(count)
            net = gm.Network(
                [gm.Conv2d(1, 32, 3, "relu"), gm.Conv2d(32, 32, 3, "relu", padding=1), gm.MaxPool2d(2),
                 gm.Flatten(), gm.Dense(None, 10)],
                input_shape=(8, 8, 1), dtype=dtype, rng=0,
            )  # fmt: skip
            net.fit(X[:150], y[:150], loss="cross_entropy", epochs=1, batch_size=64)
            results.add((*weights(net).values(), net.predict(X).tobytes()))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


def test_a_smaller_last_batch_of_1x1_convolutions(isa: str) -> None:
    """A batch of 4096 pixels reads them where they lie, and one of fewer goes as a product, which packs them:
    memory is there for both ways."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 32, 32, 40), dtype=np.float32)
    y = rng.standard_normal((5, 32, 32, 24), dtype=np.float32)

    def train(*batches: int) -> gm.Network:
        net = gm.Network(
            [gm.Conv2d(40, 48, 1, "relu"), gm.Conv2d(48, 24, 1)], input_shape=(32, 32, 40), rng=0
        )
        start = 0
        for size in batches:
            rows = slice(start, start + size)
            net.fit(
                x[rows], y[rows], loss="mse", optimizer=gm.SGD(0.1), epochs=1, batch_size=4, shuffle=False
            )
            start += size
        return net

    whole, parts = train(5), train(4, 1)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        # Sums of 1024 terms and more in another order, where the batch chooses another way.
        np.testing.assert_allclose(one, two, rtol=0, atol=32 * np.finfo(np.float32).eps)
    np.testing.assert_array_equal(whole.predict(x)[4], whole.predict(x[4:])[0])


def test_nothing_is_read_that_was_not_written(
    isa: str, fill_workspaces: Callable[[int | None], None]
) -> None:
    X, y = digits()
    trained = []
    for byte in (None, 0xFF):
        fill_workspaces(byte)
        layers = [
            gm.Conv2d(1, 9, 5, padding=2), gm.BatchNorm(9), gm.Activation("relu"),
            gm.Conv2d(9, 9, 3, "relu", groups=9), gm.Conv2d(9, 40, 3, "tanh", padding=1), gm.MaxPool2d(2),
            gm.Conv2d(40, 20, 1), gm.GlobalAvgPool2d(), gm.Dense(None, 10),
        ]  # fmt: skip
        net = gm.Network(layers, input_shape=(8, 8, 1), rng=0)
        net.fit(X[:150], y[:150], loss="cross_entropy", epochs=2, batch_size=64)
        trained.append((*weights(net).values(), net.predict(X).tobytes()))
    assert trained[0] == trained[1]


def test_fit_of_bytes_is_that_of_numbers() -> None:
    X, y = digits()
    pixels = np.rint(X * 16).astype(np.uint8)
    nets = [small(), small()]
    nets[0].fit(X, y, loss="cross_entropy", epochs=2)
    nets[1].fit(pixels, y, loss="cross_entropy", epochs=2, scale=1 / 16)
    assert weights(nets[0]) == weights(nets[1])
    np.testing.assert_array_equal(nets[0].predict(X), nets[1].predict(pixels))


def test_save_and_load(tmp_path: Path) -> None:
    X, _ = digits()
    path = tmp_path / "net.safetensors"
    for net in (
        small(),
        small(layout="channels_first", dtype="float64"),
        gm.Network([gm.Conv1d(8, 6, 3, "elu", 2, (1, 0), groups=2)], input_shape=(8, 8)),
        gm.Network([gm.Network([gm.Conv2d(1, 3, 2)], layout="channels_first"), gm.GlobalAvgPool2d()],
                   input_shape=(8, 8, 1)),
    ):  # fmt: skip
        net.save(path)
        again = gm.load(path)
        assert repr(again) == repr(net)
        assert again.layout == net.layout and again.input_shape == net.input_shape
        images = X.reshape(len(X), *(net.input_shape or ()))
        np.testing.assert_array_equal(again.predict(images), net.predict(images))
        assert weights(again) == weights(net)
        assert again.summary() == net.summary()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(copied.predict(images), net.predict(images))
    first = small(layout="channels_first")
    assert copy.deepcopy(first).layout == pickle.loads(pickle.dumps(first)).layout == "channels_first"
    assert first[:2].layout == "channels_first" and first[:2].input_shape == (1, 8, 8)


def test_a_checkpoint_goes_on_to_the_bit(tmp_path: Path) -> None:
    X, y = digits()
    path = tmp_path / "state.safetensors"
    options = {"loss": "cross_entropy", "batch_size": 64}
    whole, rest = small(), small()
    whole.fit(X, y, epochs=3, **options)
    small().fit(X, y, epochs=1, callbacks=[gm.callbacks.Checkpoint(path)], **options)
    rest.fit(X, y, epochs=3, resume=path, callbacks=[gm.callbacks.Checkpoint(path)], **options)
    assert weights(rest) == weights(whole)


# -- channels first ------------------------------------------------------------------------------------------


def test_channels_first_networks_do_the_same() -> None:
    """The same numbers, turned on the way in and out: outputs, gradients, trace, training, scores."""
    X = np.random.default_rng(0).standard_normal((40, 6, 5, 3)).astype(np.float32)
    target = np.random.default_rng(1).standard_normal((40, 6, 5, 2)).astype(np.float32)

    def make(layout: str) -> gm.Network:
        shape = (6, 5, 3) if layout == "channels_last" else (3, 6, 5)
        layers = [gm.Conv2d(3, 4, 3, "tanh", padding=1), gm.Conv2d(4, 2, 1)]
        return gm.Network(layers, input_shape=shape, rng=0, layout=layout)

    last, first = make("channels_last"), make("channels_first")
    assert first.input_shape == (3, 6, 5)
    assert weights(last) == weights(first)
    Xf, tf = channels_first(X), channels_first(target)

    def same() -> None:
        np.testing.assert_array_equal(first.predict(Xf), channels_first(last.predict(X)))
        np.testing.assert_array_equal(first.predict(Xf[0]), channels_first(last.predict(X[:1]))[0])
        np.testing.assert_array_equal(first.forward(Xf), channels_first(last.forward(X)))
        dx = last.backward(target)
        np.testing.assert_array_equal(first.backward(tf), channels_first(dx))
        for p, q in zip(last.parameters(), first.parameters(), strict=True):
            np.testing.assert_array_equal(p.grad, q.grad)
        first.forward(Xf[0])
        np.testing.assert_array_equal(first.backward(tf[0]).shape, (3, 6, 5))
        last.forward(X[0])
        last.backward(target[0])
        traces = first.trace(Xf), last.trace(X)
        for name, value in traces[0].items():
            np.testing.assert_array_equal(value, channels_first(traces[1][name]))

    same()
    for options in ({}, {"shuffle": "blocks"}, {"validation_split": 0.25}):
        histories = []
        for net, x, y in ((last, X, target), (first, Xf, tf)):
            histories.append(
                net.fit(x, y, loss="mse", epochs=2, batch_size=16, metrics=["mae", total], **options)
            )
        assert weights(last) == weights(first)
        assert dict(histories[0]) == dict(histories[1])
    for net, x, y in ((last, X, target), (first, Xf, tf)):
        net.fit([(x[:16], y[:16]), (x[16:30], y[16:30])], loss="mse", epochs=2)
    assert weights(last) == weights(first)
    same()
    assert last.evaluate(X, target, metrics=["mse", total]) == first.evaluate(Xf, tf, metrics=["mse", total])


def total(target: Array, output: Array) -> float:
    """A metric of one's own, which sees channels last."""
    assert target.shape == output.shape and target.shape[1:] == (6, 5, 2)
    return float(output.sum())


def test_channels_first_of_other_data(tmp_path: Path) -> None:
    """Sequences, rows, bytes, mapped files, probabilities."""
    rng = np.random.default_rng(0)
    sequences = rng.standard_normal((5, 7, 2)).astype(np.float32)
    last = gm.Network([gm.Conv1d(2, 4, 3)], rng=0)
    first = gm.Network([gm.Conv1d(2, 4, 3)], rng=0, layout="channels_first")
    want = np.moveaxis(last.predict(sequences), 2, 1)
    np.testing.assert_array_equal(first.predict(np.moveaxis(sequences, 2, 1)), want)
    assert first.input_shape == (2, 7) and last.input_shape == (7, 2)

    rows = rng.standard_normal((5, 6)).astype(np.float32)
    dense = [
        gm.Network([gm.Dense(6, 2)], rng=0, layout=layout) for layout in ("channels_last", "channels_first")
    ]
    np.testing.assert_array_equal(dense[0].predict(rows), dense[1].predict(rows))
    assert dense[1].input_shape == (6,)

    pixels = rng.integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 3, 64)
    path = tmp_path / "pixels.npy"
    np.save(path, pixels)
    nets = []
    for x in (pixels, np.load(path, mmap_mode="r"), pixels.astype(np.float32) / 255):
        net = gm.Network(
            [gm.Conv2d(3, 4, 3, "relu"), gm.GlobalAvgPool2d(), gm.Dense(4, 3)], rng=0, layout="channels_first"
        )
        more = {"scale": 1 / 255} if x.dtype == np.uint8 else {}
        net.fit(x, labels, loss="cross_entropy", epochs=1, **more)
        nets.append((weights(net), net.predict(x).tobytes()))
    assert nets[0] == nets[1]

    head = gm.Network([gm.Conv2d(3, 4, 1)], input_shape=(3, 8, 8), rng=0, layout="channels_first")
    head.loss = "cross_entropy"
    images = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(head.predict_proba(images).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(head.predict_proba(images[0]).sum(axis=0), 1, rtol=1e-5)


def test_channels_first_errors() -> None:
    net = small(layout="channels_first")
    with pytest.raises(
        gm.ShapeError, match=r"X has shape \(2, 8, 8, 1\); it takes \(N, 1, 8, 8\), or one sample \(1, 8, 8\)"
    ):
        net.predict(np.ones((2, 8, 8, 1)))
    with pytest.raises(
        gm.ShapeError, match=r"batch 1: X has shape .*takes \(N, 1, 8, 8\)|it takes \(N, 1, 8, 8\)"
    ):
        net.fit([(np.ones((2, 8, 8, 1)), np.array([0, 1]))], loss="cross_entropy")
    with pytest.raises(ValueError, match="unknown layout 'NCHW'; known: channels_last, channels_first"):
        gm.Network([gm.Conv2d(1, 2, 3)], layout="NCHW")
    net.forward(np.ones((2, 1, 8, 8)))
    with pytest.raises(gm.ShapeError, match="backward: dy has shape"):
        net.backward(np.ones((3, 10)))


# -- ready models --------------------------------------------------------------------------------------------


def test_models() -> None:
    X, _ = digits()
    net = gm.models.mnist_cnn(input_shape=(8, 8, 1), activation="elu", dropout=0.2, rng=3, dtype="float64")
    assert net.dtype == "float64" and net.predict(X[:2]).shape == (2, 10)
    assert "Dropout(0.2)" in net.summary() and "elu" in net.summary()
    net = gm.models.lenet5(7, "relu", input_shape=(32, 32, 3), layout="channels_last", rng=0)
    assert net.predict(np.zeros((1, 32, 32, 3))).shape == (1, 7)
    assert gm.models.lenet5(layout="channels_first").input_shape == (1, 28, 28)
    with pytest.raises(gm.ShapeError, match=r"Conv2d: kernel \(5, 5\) spans \(5, 5\) pixels"):
        gm.models.lenet5(input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="Dropout: rate"):
        gm.models.mnist_cnn(dropout=1.0)
    with pytest.raises(ValueError, match="Dense: n_out"):
        gm.models.mnist_cnn(0)


# -- MNIST ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist(shared_data: Path) -> None:
    """98.9 % of the test images after 3 epochs; so has the mean of three seeds, which takes minutes."""
    folder = shared_data / "mnist"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/mnist")
    (X, y), test = gm.datasets.mnist(folder, as_images=True)
    net = gm.models.mnist_cnn(rng=0)
    optimizer = gm.Adam(gm.schedules.Cosine(1e-3))
    net.fit(X, y, loss="cross_entropy", optimizer=optimizer, epochs=3, batch_size=64)
    assert net.evaluate(*test)["accuracy"] >= 0.989


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_pooling_goes_before_an_activation_that_keeps_the_order(activation: str) -> None:
    """conv, activation, max_pool is compiled as conv, max_pool, activation: to the same bits."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 9, 8, 2)).astype(np.float32)
    nets = [
        gm.Network([*layers, gm.Flatten(), gm.Dense(None, 3)], input_shape=(9, 8, 2), rng=1)
        for layers in (
            [gm.Conv2d(2, 6, 3, activation), gm.MaxPool2d(2)],
            [gm.Conv2d(2, 6, 3), gm.MaxPool2d(2), gm.Activation(activation)],
        )
    ]
    nets[1].load_state_dict(dict(zip(nets[1].state_dict(), nets[0].state_dict().values(), strict=True)))
    dy = rng.normal(size=(5, 3)).astype(np.float32)
    outputs = [net.forward(x, training=True) for net in nets]
    gradients = [net.backward(dy) for net in nets]
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(*gradients)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        np.testing.assert_array_equal(one.grad, other.grad)
    np.testing.assert_array_equal(nets[0].predict(x), outputs[0])
    assert (nets[0].trace(x)["0.h"] == 0).any() == (activation == "relu")
