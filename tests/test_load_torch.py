"""Weights of PyTorch modules in gemmule's networks."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]


def same_outputs(net: gm.Network, module: Any, x: Array) -> None:
    """x channels-first; to 1e-4 of the outputs' size."""
    import torch

    with torch.no_grad():
        want = module(torch.from_numpy(x)).numpy()
    channels_last = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    given = x if net.layout == "channels_first" else channels_last
    for got in (net.predict(given), net.forward(given)):
        assert abs(got - want).max() <= 1e-4 * abs(want).max()


def images(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


# -- without PyTorch -----------------------------------------------------------------------------------------


def convolutional(**options: Any) -> gm.Network:
    """Filters, features behind a Flatten, state: everything that is turned, or dropped."""
    layers = [
        gm.Conv2d(2, 4, 3, "relu", padding=1, groups=2), gm.BatchNorm(4), gm.MaxPool2d(2),
        gm.Flatten(), gm.Dropout(0.5), gm.BatchNorm(None), gm.Dense(None, 5, "relu"), gm.Dense(5, 3),
    ]  # fmt: skip
    shape = (2, 4, 6) if options.get("layout") == "channels_first" else (4, 6, 2)
    return gm.Network(layers, input_shape=shape, **{"rng": 0, **options})


def as_pytorch_has_it(net: gm.Network, image: tuple[int, ...] = (2, 3, 4)) -> dict[str, Array]:
    """The state of `convolutional` in PyTorch's order, by loops; `image`: what its Flatten has."""
    state = net.state_dict()
    filters = state["0.weight"]
    state["0.weight"] = np.empty((filters.shape[0], filters.shape[3], *filters.shape[1:3]), filters.dtype)
    for o, i, j, c in np.ndindex(filters.shape):
        state["0.weight"][o, c, i, j] = filters[o, i, j, c]
    height, width, channels = image
    for name, array in state.items():
        if name.startswith("5.") or name == "6.weight":
            array[...] = [
                [row[(h * width + w) * channels + c] for c, h, w in np.ndindex(channels, height, width)]
                for row in array.reshape(-1, height * width * channels)
            ] if array.ndim > 1 else [
                array[(h * width + w) * channels + c] for c, h, w in np.ndindex(channels, height, width)
            ]  # fmt: skip
    return {**state, "1.num_batches_tracked": np.array(7), "5.num_batches_tracked": np.array(7)}


def filled(net: gm.Network) -> gm.Network:
    """Every number another."""
    for at, (name, array) in enumerate([*net.named_parameters(), *net.named_state()]):
        array[...] = np.random.default_rng(at).uniform(0.5, 1.5, array.shape)
        assert name
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_every_array_is_turned(layout: str, dtype: str, tmp_path: Path) -> None:
    want = filled(convolutional(dtype=dtype, layout=layout))
    state = as_pytorch_has_it(want)
    path = tmp_path / "weights.safetensors"
    gm.io.save_tensors(path, state)
    for source in (state, path, str(path), {name: a.astype(np.float64) for name, a in state.items()}):
        net = convolutional(dtype=dtype, layout=layout)
        gm.io.load_torch(net, source)
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, want.state_dict()[name], err_msg=name)


def test_sequences_and_their_features() -> None:
    net = gm.Network([gm.Conv1d(2, 3, 2), gm.Network([gm.Flatten()]), gm.Dense(None, 1)], input_shape=(4, 2))
    filters, columns = np.arange(12.0).reshape(3, 2, 2), np.arange(9.0).reshape(1, 9)
    gm.io.load_torch(
        net, {"0.weight": filters, "0.bias": np.ones(3), "2.weight": columns, "2.bias": np.ones(1)}
    )
    np.testing.assert_array_equal(net[0].weight[:, 0], filters.transpose(0, 2, 1))
    np.testing.assert_array_equal(net[2].weight, columns.reshape(3, 3).T.reshape(1, 9))


def test_names_are_mapped() -> None:
    def block(name: str) -> gm.Layer:
        return gm.Residual(gm.Dense(3, 3, name=name), shortcut=gm.Dense(3, 3))

    net = gm.Network([gm.Network([block("fc")], name="layer1"), gm.Dense(3, 2)], rng=0)
    want = net.state_dict()
    assert "layer1.0.shortcut.0.weight" in want
    theirs = {name.replace("shortcut", "downsample"): array + 1 for name, array in want.items()}

    def loaded(state: dict[str, Array], rename: Any = None) -> None:
        for p in net.parameters():
            p[...] = 0
        gm.io.load_torch(net, state, rename)
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, want[name] + 1)

    loaded(theirs)
    loaded({f"module.{name}": a for name, a in theirs.items()}, lambda name: name.removeprefix("module."))
    loaded({f"module.{name}": a for name, a in theirs.items()}, {"module": ""})
    other = {name.replace("layer1.0", "a.b").replace("1.weight", "head.w"): a for name, a in theirs.items()}
    loaded(other, {"a.b": "layer1.0", "head.w": "1.weight", "a": "nonsense"})
    # A layer may be called "downsample".
    own = gm.Network([gm.Dense(3, 2, name="downsample")], rng=0)
    gm.io.load_torch(own, {"downsample.weight": np.ones((2, 3)), "downsample.bias": np.ones(2)})
    assert own[0].weight.sum() == 6


def test_what_is_shared_has_several_names() -> None:
    layer = gm.Dense(3, 3)
    net = gm.Network([layer, gm.Activation("relu"), layer], rng=0)
    one = {"0.weight": np.eye(3), "0.bias": np.ones(3)}
    other = {"2.weight": np.eye(3), "2.bias": np.ones(3)}
    for state in (one, other, {**one, **other}):
        layer.weight[...] = 0
        gm.io.load_torch(net, state)
        np.testing.assert_array_equal(layer.weight, np.eye(3))
    with pytest.raises(ValueError, match=r"0\.weight and 2\.weight differ"):
        gm.io.load_torch(net, {**one, **other, "2.weight": np.zeros((3, 3))})
    np.testing.assert_array_equal(layer.weight, np.eye(3))


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.pop(name)


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.update({name: value})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without("7.bias"), ValueError, "missing 7.bias; unexpected none"),
        (without("1.running_var"), ValueError, "missing 1.running_var; unexpected none"),
        (changed("8.weight", np.ones(3)), ValueError, "missing none; unexpected 8.weight"),
        (dict.clear, ValueError, "missing 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean and 9 more;"),
        (changed("0.weight", np.ones((4, 3, 3, 1))), gm.ShapeError,
         "0.weight has shape (4, 3, 3, 1); the network takes (4, 1, 3, 3)"),
        (changed("7.bias", np.ones((3, 1))), gm.ShapeError, "7.bias has shape (3, 1); the network takes"),
        (changed("7.bias", np.array(["a"] * 3)), gm.DTypeError, "load_torch: 7.bias has dtype <U1"),
        (changed("7.bias", np.full(3, 1e300)), ValueError, "7.bias: 1e+300 at (0,) overflows float32"),
        (changed(7, np.ones(3)), TypeError, "source has the name 7, which is no string"),
        (changed("downsample.x", np.ones(3)), ValueError, "unexpected downsample.x"),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(
    change: Callable[[dict[str, Any]], object], error: type, message: str
) -> None:
    net = convolutional()
    before = {name: array.tobytes() for name, array in net.state_dict().items()}
    state: dict[str, Any] = as_pytorch_has_it(filled(convolutional()))
    change(state)
    with pytest.raises(error) as caught:
        gm.io.load_torch(net, state)
    assert message in str(caught.value)
    assert {name: array.tobytes() for name, array in net.state_dict().items()} == before


def test_other_bad_input(tmp_path: Path) -> None:
    net = convolutional()
    with pytest.raises(TypeError, match="path of a safetensors file or a mapping, not 3"):
        gm.io.load_torch(net, 3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not built yet"):
        gm.io.load_torch(gm.Network([gm.Dense(None, 2)]), {})
    path = tmp_path / "own.safetensors"
    net.save(path)
    with pytest.raises(gm.FileError, match=r"gemmule's own.*gm\.load"):
        gm.io.load_torch(net, path)
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(gm.FileError, match="a zip archive"):
        gm.io.load_torch(net, tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError):
        gm.io.load_torch(net, tmp_path / "none.safetensors")
    state = as_pytorch_has_it(net)
    with pytest.raises(ValueError, match=r"0\.weight and 0\.bias both become x"):
        gm.io.load_torch(net, state, lambda name: "x")
    with pytest.raises(TypeError, match=r"rename makes None of '0\.weight'"):
        gm.io.load_torch(net, state, lambda name: None)  # type: ignore[arg-type, return-value]
    odd = gm.Network(
        [gm.Flatten(), gm.Residual(gm.Dense(None, 24)), gm.Dense(24, 2)], input_shape=(3, 4, 2), rng=0
    )
    with pytest.raises(ValueError, match=r"1, Residual, is behind a Flatten of \(N, 3, 4, 2\)"):
        gm.io.load_torch(odd, odd.state_dict())
    grey = gm.Network([gm.Flatten(), gm.Residual(gm.Dense(None, 12))], input_shape=(3, 4, 1), rng=0)
    gm.io.load_torch(grey, grey.state_dict())


# -- with PyTorch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 97])
def test_resnet18(tmp_path: Path, size: int) -> None:
    torch = pytest.importorskip("torch")
    models = importlib.import_module("torch_models")
    module = models.randomized(models.ResNet18(20))
    path = tmp_path / "resnet18.safetensors"
    if size == 64:  # the format's own package, where it is there
        pytest.importorskip("safetensors")
        importlib.import_module("safetensors.torch").save_file(module.state_dict(), path)
    else:
        gm.io.save_tensors(path, {name: tensor.numpy() for name, tensor in module.state_dict().items()})
    layout = "channels_first" if size == 97 else "channels_last"
    shape = (3, size, size) if size == 97 else (size, size, 3)
    net = gm.models.resnet18(20, input_shape=shape, layout=layout)
    gm.io.load_torch(net, path)
    same_outputs(net, module, images(3, 3, size, size))
    net = gm.models.resnet18(20, input_shape=shape, layout=layout)
    gm.io.load_torch(net, dict(module.named_parameters()) | dict(module.named_buffers()))
    same_outputs(net, module, images(3, 3, size, size))
    assert torch is not None


def test_modules_of_other_layers() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    models = importlib.import_module("torch_models")
    module = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2), nn.ReLU(), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.Flatten(),
        nn.BatchNorm1d(36), nn.Linear(36, 7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip
    models.randomized(module)
    net = gm.Network(
        [gm.Conv2d(4, 6, (3, 2), "relu", stride=2, padding=1, groups=2), gm.BatchNorm(6), gm.MaxPool2d(2),
         gm.Flatten(), gm.BatchNorm(None), gm.Dense(None, 7, "tanh"), gm.Dense(7, 3)],
        input_shape=(9, 11, 4), rng=0,
    )  # fmt: skip
    gm.io.load_torch(net, module.state_dict(), {"2": "1", "5": "4", "6": "5", "8": "6"})
    same_outputs(net, module, images(5, 4, 9, 11))

    module = nn.Sequential(
        nn.LayerNorm([3, 4, 5]), nn.GroupNorm(3, 3), nn.Flatten(), nn.LayerNorm(60), nn.Linear(60, 2)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 1.5)
    norms = gm.Network(
        [gm.LayerNorm((4, 5, 3)), gm.GroupNorm(3), gm.Flatten(), gm.LayerNorm(60), gm.Dense(60, 2)],
        input_shape=(4, 5, 3),
    )
    gm.io.load_torch(norms, module.state_dict())
    same_outputs(norms, module, images(5, 3, 4, 5))

    module = nn.Sequential(nn.Conv1d(3, 4, 3, 2, 1), nn.Flatten(), nn.Linear(20, 2)).eval()
    sequences = gm.Network(
        [gm.Conv1d(3, 4, 3, stride=2, padding=1), gm.Flatten(), gm.Dense(None, 2)], input_shape=(9, 3)
    )
    gm.io.load_torch(sequences, module.bfloat16().state_dict())
    same_outputs(sequences, module.float(), images(5, 3, 9))
