"""Branches side by side: gradients, shapes, descriptions, files, and what they refuse."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import RTOL, check_network, points
from image_cases import channels_first
from numpy.typing import NDArray

import gemmule as gm
from gemmule import _core

Array = NDArray[Any]
LABELS = np.array([0, 2, 1, 2])


def network(shape: tuple[int, ...], *layers: gm.Layer, **more: Any) -> gm.Network:
    return gm.Network(list(layers), input_shape=shape, **{"dtype": "float64", "rng": 0, **more})


def inception(channels: int = 4) -> gm.Concat:
    """A small one: windows of several sizes, a pool, and x itself."""
    return gm.Concat(
        gm.Conv2d(channels, 3, 1, "relu"),
        [gm.Conv2d(channels, 2, 1, "tanh"), gm.Conv2d(2, 5, 3, "relu", padding=1)],
        [gm.MaxPool2d(3, 1, 1), gm.Conv2d(None, 2, 1)],
        None,
    )


@pytest.mark.parametrize(
    "layer",
    [
        lambda: gm.Concat(gm.Conv2d(2, 3, 1, "tanh"), gm.Conv2d(2, 1, 3, "silu", padding=1)),
        lambda: gm.Concat(None, [gm.Conv2d(2, 3, 3, "tanh", padding=1), gm.Conv2d(3, 2, 1)], None),
        lambda: gm.Concat(*(gm.Conv2d(2, 1 + i % 3, 1, "tanh") for i in range(15))),
        lambda: gm.Concat(gm.Concat(None, gm.Conv2d(2, 1, 1)), gm.Residual(gm.Conv2d(2, 2, 1, "tanh"))),
        lambda: gm.Residual(gm.Concat(gm.Conv2d(2, 1, 1, "tanh"), gm.Conv2d(2, 1, 1)), activation="tanh"),
        lambda: gm.Concat(gm.Activation("tanh")),
    ],
)
def test_gradients(isa: str, layer: Callable[[], gm.Layer]) -> None:
    net = network((3, 4, 2), gm.Conv2d(2, 2, 1, "tanh"), layer(), gm.Flatten(), gm.Dense(None, 3))
    check_network(net, points((4, 3, 4, 2)), "cross_entropy", LABELS)


def test_gradients_of_vectors_and_of_a_layer_in_two_branches(isa: str) -> None:
    shared = gm.Dense(5, 5, "tanh")
    net = network((5,), gm.Concat([shared, gm.Dense(5, 2, "gelu")], shared, None), gm.Dense(12, 3))
    assert len(list(net.named_parameters())) == 6
    check_network(net, points((4, 5)), "cross_entropy", LABELS)


def test_a_frozen_branch_gets_no_gradient() -> None:
    net = network((5,), gm.Concat(gm.Dense(5, 3, "tanh"), gm.Dense(5, 2, "tanh")), gm.Dense(5, 3))
    x, dy = points((4, 5)), points((4, 3), seed=1)
    net.forward(x)
    dx = net.backward(dy)
    first, second = (p.grad.copy() for name, p in net.named_parameters() if name.startswith("0.1"))
    net.zero_grad()
    next(layer for layer, _ in net[0]._leaves(True)).trainable = False
    net.forward(x)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=RTOL)
    grads = {name: p.grad for name, p in net.named_parameters()}
    assert not grads["0.0.0.weight"].any()
    np.testing.assert_allclose(grads["0.1.0.weight"], first, rtol=1e-12)
    np.testing.assert_allclose(grads["0.1.0.bias"], second, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(isa: str, dtype: str, tmp_path: Path) -> None:
    """What the branches make by themselves, to the bit; the same from a file, a copy, channels-first."""
    x = np.random.default_rng(0).standard_normal((5, 6, 7, 4)).astype(dtype)
    net = network((6, 7, 4), inception(), dtype=dtype)
    chains = [chain._layers for _, chain in net[0].chains()]
    parts = [network((6, 7, 4), *copy.deepcopy(layers), dtype=dtype).predict(x) for layers in chains]
    for part, layers in zip(parts, chains, strict=True):
        assert part.shape[-1] in (3, 5, 2) and layers
    names = dict(net.named_parameters())
    assert list(names) == [f"0.{n}.{p}" for n in ("0.0", "1.0", "1.1", "2.1") for p in ("weight", "bias")]
    trace = net.trace(x)
    want = np.concatenate([trace["0.0.0.h"], trace["0.1.1.h"], trace["0.2.1.h"], x], axis=-1)
    assert net.output_shape() == (6, 7, 14)
    np.testing.assert_array_equal(net.predict(x), want)
    np.testing.assert_array_equal(net.forward(x), want)
    net.save(tmp_path / "net.safetensors")
    for other in (gm.load(tmp_path / "net.safetensors"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert repr(other) == repr(net)
        np.testing.assert_array_equal(other.predict(x), want)
    turned = network((4, 6, 7), *net.layers, dtype=dtype, layout="channels_first")
    np.testing.assert_array_equal(turned.predict(channels_first(x)), channels_first(want))


def test_concat_of_graphs() -> None:
    """More values than an op reads, in their order."""
    graph = _core.Graph("float64")
    x = graph.input([2, 3])
    values = [graph.activation(x, "leaky_relu", float(i), f"h{i}") for i in range(14)]
    tape = _core.Tape(graph, graph.concat(values, "y"), 5)
    data, dy = -abs(points((5, 2, 3))), points((5, 2, 42), seed=1)
    out, dx = np.empty((5, 2, 42)), np.empty((5, 2, 3))
    tape.forward(data, out, 0, 0)
    np.testing.assert_array_equal(out, np.concatenate([i * data for i in range(14)], axis=-1))
    tape.backward(dy, dx)
    want = sum(i * dy[..., 3 * i : 3 * i + 3] for i in range(14))
    np.testing.assert_allclose(dx, want, rtol=1e-12, atol=1e-12)
    with pytest.raises(gm.ShapeError, match=r"concat: shapes \(2, 3\) and \(3, 2\) differ beside"):
        graph.concat([x, graph.reshape(x, [3, 2], "r")], "y")
    with pytest.raises(ValueError, match="concat: there is nothing"):
        graph.concat([], "y")


def test_training(threads: int) -> None:
    """The same weights for any number of threads."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((48, 8, 8, 4)).astype(np.float32), rng.integers(0, 3, 48)

    def fitted() -> bytes:
        layers = [
            inception(),
            gm.BatchNorm(14, "relu"),
            inception(14),
            gm.GlobalAvgPool2d(),
            gm.Dense(None, 3),
        ]
        net = gm.Network(layers, rng=0, input_shape=(8, 8, 4))
        history = net.fit(x, y, loss="cross_entropy", optimizer=gm.Adam(1e-2), epochs=3, batch_size=16)
        assert history["loss"][-1] < history["loss"][0]
        return b"".join(p.tobytes() for p in net.parameters())

    mine = fitted()
    gm.set_num_threads(1)
    assert fitted() == mine


def test_description() -> None:
    net = network((6, 7, 4), inception())
    assert net.flops() == 2 * 6 * 7 * (4 * 3 + 4 * 2 + 2 * 5 * 9 + 4 * 2)
    text = net.summary()
    for line in (
        "0.0.0  Conv2d(4, 3, 1, relu)",
        "0.1.1  Conv2d(2, 5, 3, relu, padding=1)",
        "0.2.0  MaxPool2d",
        "0      Concat()",
        "(N, 6, 7, 14)",
    ):
        assert line in text
    assert repr(gm.Concat(gm.Flatten(), [gm.Dense(2, 3), gm.Dense(3, 1)], None, name="c")) == (
        "Concat(Flatten(), [Dense(2, 3), Dense(3, 1)], None, name='c')"
    )
    assert gm.Concat(gm.Dense(2, 3, "relu"), gm.Dense(2, 3, "relu")).output_activation() == "relu"
    for other in (None, gm.Dense(2, 3), gm.Dense(2, 3, "tanh")):
        assert gm.Concat(gm.Dense(2, 3, "relu"), other).output_activation() != "relu"
    assert gm.Concat(gm.Dense(2, 3, "softmax")).output_activation() is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gm.Concat(), ValueError, "Concat: it needs at least one branch"),
        (lambda: gm.Concat([]), ValueError, "Concat: branch 0: it needs at least one layer"),
        (lambda: gm.Concat(None, "relu"), TypeError, "Concat: branch 1: layer 0 is 'r'"),
        (lambda: gm.Concat(3), TypeError, "Concat: branch 0: layers must be a list of layers, not 3"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


def test_branches_that_do_not_fit() -> None:
    layer = gm.Concat(gm.Conv2d(2, 3, 3), None)
    with pytest.raises(gm.ShapeError) as caught:
        network((6, 7, 2), layer)
    assert (
        "concat: of (N, 6, 7, 2) branch 0 makes (N, 4, 5, 3), branch 1 (N, 6, 7, 2); only the channels"
        in (str(caught.value))
    )
    with pytest.raises(gm.ShapeError, match="Conv2d: x"):
        network((6, 7, 3), gm.Concat(None, gm.Conv2d(2, 3, 1)))


def test_a_malformed_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    network((5,), gm.Concat(gm.Dense(5, 3), None)).save(path)
    good = path.read_bytes()
    for before, after in [(b"[1]", b"[7]"), (b"[1]", b"[0]"), (b"[1]", b"[a]"), (b"unchanged", b"unchanget")]:
        assert before in good
        path.write_bytes(good.replace(before, after))
        with pytest.raises(gm.FileError):
            gm.load(path)
