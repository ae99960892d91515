"""The ready networks with normalizations and ways around: ResNet-20 and 18, the small MobileNet."""

import copy
import importlib
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


def digits(count: int = 300) -> tuple[Array, Array]:
    X, y = gm.datasets.digits(as_images=True)
    return X[:count], y[:count]


def images(count: int, size: int, channels: int = 3) -> tuple[Array, Array]:
    """Normal deviates, and labels."""
    x = np.random.default_rng(0).standard_normal((count, size, size, channels)).astype(np.float32)
    return x, np.arange(count) % 10


def count_of(net: gm.Network) -> int:
    return sum(p.size for p in net.parameters())


# -- ResNet-20 -----------------------------------------------------------------------------------------------


def test_resnet20_is_the_papers() -> None:
    net = gm.models.resnet20(rng=0)
    assert count_of(net) == 272_474
    assert net.input_shape == (32, 32, 3) and net.output_shape() == (10,)
    convolutions = [name for name, p in net.named_parameters() if p.ndim == 4]
    assert len(convolutions) == 19 + 2  # and the two shortcuts
    # The first, three stages of six convolutions (but for the strided ones' inputs), shortcuts, classes.
    stages = [6 * 16 * 16 * 1024, (16 * 32 + 5 * 32 * 32) * 256, (32 * 64 + 5 * 64 * 64) * 64]
    shortcuts = 16 * 32 * 256 + 32 * 64 * 64
    assert net.flops() == 2 * (9 * (3 * 16 * 1024 + sum(stages)) + shortcuts + 640)
    for shape in ((28, 28, 1), (8, 8, 1), (33, 18, 2)):
        small = gm.models.resnet20(7, input_shape=shape, rng=0)
        assert small.predict(np.ones((2, *shape))).shape == (2, 7)
    assert gm.models.resnet20(layout="channels_first").input_shape == (3, 32, 32)
    with pytest.raises(ValueError, match="Dense: n_out is 0"):
        gm.models.resnet20(0)


def test_resnet20_follows_pytorch(force_conv: Callable[[str], None]) -> None:
    """Three steps with momentum from the same start, running statistics included. In float64 to 1e-9 of each
    array's size, a million roundings; in float32 plain sums stay within twice PyTorch's distance from there,
    and Winograd's, whose errors are 2.7 times theirs, within 2.7 times that."""
    torch = pytest.importorskip("torch")
    models = importlib.import_module("torch_models")
    x, y = images(8, 16)

    def pytorchs(dtype: Any) -> dict[str, Array]:
        torch.manual_seed(0)
        module = models.resnet20().to(dtype).train()
        start.update({name: t.numpy().copy() for name, t in module.state_dict().items()})
        rows = torch.from_numpy(channels_first(x)).to(dtype)
        optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(rows), torch.from_numpy(y)).backward()
            optimizer.step()
        end = gm.models.resnet20(input_shape=(16, 16, 3), dtype="float64")
        gm.io.load_torch(end, module.state_dict())
        return end.state_dict()

    def ours(dtype: str) -> dict[str, Array]:
        net = gm.models.resnet20(input_shape=(16, 16, 3), dtype=dtype)
        gm.io.load_torch(net, start)
        optimizer = gm.SGD(0.05, momentum=0.9)
        net.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=3, batch_size=8, shuffle=False)
        return net.state_dict()

    def distance(one: dict[str, Array], other: dict[str, Array]) -> float:
        return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))

    start: dict[str, Array] = {}
    theirs = pytorchs(torch.float64)
    for name, array in ours("float64").items():
        assert abs(array - theirs[name]).max() <= 1e-9 * abs(theirs[name]).max(), name
    rounded = pytorchs(torch.float32)
    # The same start, rounded: PyTorch draws in the type it makes modules in.
    for path, times in (("", 2 * 2.7), ("direct", 2)):
        force_conv(path)
        assert distance(ours("float32"), theirs) <= times * distance(rounded, theirs)


def test_a_trained_resnet20_predicts_the_same_folded_and_not(isa: str) -> None:
    """`predict` folds 21 normalizations and adds the residuals in the convolutions' epilogue, `forward` and
    `trace` do not. A layer's rounding is a random walk of at most 9 x 64 steps of eps / 2: eight deviations
    of it, 22 layers one after the other."""
    X, y = digits()
    net = gm.models.resnet20(input_shape=(8, 8, 1), rng=0)
    net.fit(X, y, loss="cross_entropy", optimizer=gm.Adam(1e-3), epochs=3)
    folded, tape, plain = net.predict(X), net.forward(X), net.trace(X)["12.h"]
    tolerance = 22 * 8 * np.sqrt(9 * 64) * np.finfo(np.float32).eps / 2 * abs(plain).max()
    exact = copy.deepcopy(net).state_dict()
    double = gm.models.resnet20(input_shape=(8, 8, 1), dtype="float64")
    double.load_state_dict(exact)
    for outputs in (folded, tape, plain):
        assert abs(outputs - double.predict(X)).max() <= tolerance
        np.testing.assert_array_equal(outputs.argmax(axis=1), plain.argmax(axis=1))
    assert net.evaluate(X, y)["accuracy"] == (plain.argmax(axis=1) == y).mean() > 0.5


def test_resnet20_channels_first() -> None:
    x, y = images(6, 12)
    last = gm.models.resnet20(input_shape=(12, 12, 3), rng=0)
    first = gm.models.resnet20(input_shape=(3, 12, 12), rng=0, layout="channels_first")
    last.fit(x, y, loss="cross_entropy", epochs=2)
    first.fit(channels_first(x), y, loss="cross_entropy", epochs=2)
    assert weights(last) == weights(first)
    np.testing.assert_array_equal(last.predict(x), first.predict(channels_first(x)))


@pytest.mark.parametrize("make", [gm.models.resnet20, gm.models.mobilenet_small])
def test_threads_do_not_change_a_bit(isa: str, make: Any) -> None:
    x, y = images(20, 16)
    results = set()
    try:
        for threads in (1, 2, 3, 7):
            gm.set_num_threads(threads)
            net = make(input_shape=(16, 16, 3), rng=0)
            net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=8)
            state = tuple(array.tobytes() for array in net.state_dict().values())
            results.add((*state, net.predict(x).tobytes()))
    finally:
        gm.set_num_threads(None)
    assert len(results) == 1


# -- ResNet-18 -----------------------------------------------------------------------------------------------


def test_resnet18_is_the_papers() -> None:
    net = gm.models.resnet18(rng=0)
    assert count_of(net) == 11_689_512 and net.input_shape == (224, 224, 3)
    names = list(net.state_dict())
    assert names[0] == "conv1.weight" and names[-1] == "fc.bias"
    assert "layer4.0.shortcut.0.weight" in names and "layer1.0.shortcut.0.weight" not in names
    assert "layer2.1.bn2.running_var" in names
    assert 3.6e9 < net.flops() < 3.7e9  # 1.8 billion multiply-adds
    small = gm.models.resnet18(5, input_shape=(64, 64, 3), rng=0)
    x, _ = images(2, 64)
    assert small.predict(x).shape == (2, 5)


# -- MobileNet -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        (0.25, (8, 8, 8, 8, 16, 24, 64)),
        (1, (16, 16, 24, 32, 64, 96, 256)),
        (1.4, (24, 24, 32, 48, 88, 136, 360)),
    ],
)
def test_mobilenet_small_by_width(width: float, channels: tuple[int, ...]) -> None:
    """Multiples of 8, no more than a tenth below what was asked for; the last number is that before the
    classes."""
    net = gm.models.mobilenet_small(width=width, rng=0)
    n_in, *stages, last = channels
    count = 27 * n_in + 2 * n_in
    for n_out, blocks in zip(stages, (1, 2, 3, 3, 1), strict=True):
        for _ in range(blocks):
            inner = 6 * n_in
            count += (n_in + 9 + n_out) * inner + 2 * (inner + inner + n_out)
            n_in = n_out
    assert count_of(net) == count + n_in * last + 2 * last + 10 * last + 10
    assert width != 1 or count_of(net) == 282_362
    depthwise = [p.shape for _, p in net.named_parameters() if p.ndim == 4 and p.shape[1] == 3]
    assert all(shape[3] == 1 for shape in depthwise[1:]) and len(depthwise) == 1 + 10


def test_mobilenet_small_takes_images_of_any_size() -> None:
    for shape in ((32, 32, 3), (32, 32, 1), (96, 64, 3)):
        net = gm.models.mobilenet_small(4, 0.25, input_shape=shape, rng=0)
        assert net.output_shape() == (4,)
        assert net.predict(np.ones((2, *shape))).shape == (2, 4)
    net = gm.models.mobilenet_small(layout="channels_first", dtype="float64")
    assert net.input_shape == (3, 32, 32) and net.dtype == "float64"
    assert net.summary().count("Residual()") == 6


def test_mobilenet_small_learns_and_is_kept(tmp_path: Path) -> None:
    X, y = digits(150)
    X = np.kron(X, np.ones((1, 4, 4, 1), np.float32))  # 32 x 32
    net = gm.models.mobilenet_small(width=0.5, input_shape=(32, 32, 1), rng=0)
    net.fit(X, y, loss="cross_entropy", optimizer=gm.Adam(3e-3), epochs=8)
    assert net.evaluate(X, y)["accuracy"] > 0.9
    net.save(tmp_path / "net.safetensors")
    again = gm.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    outputs = net.forward(X)
    np.testing.assert_array_equal(net.predict(X).argmax(axis=1), outputs.argmax(axis=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "mobilenet_small: width is 0"),
        ({"width": float("nan")}, ValueError, "mobilenet_small: width is nan"),
        ({"width": "1"}, TypeError, "mobilenet_small: width must be a number"),
        ({"classes": 0}, ValueError, "Dense: n_out is 0"),
        ({"input_shape": (64,)}, gm.ShapeError, "Conv2d: x has shape"),
    ],
)
def test_mobilenet_small_bad_arguments(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        gm.models.mobilenet_small(**options)
    assert message in str(caught.value)
