"""The benchmarks of layers on images and of convolutional networks: cases, checks, contenders, figures."""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gemmule as gm
from gemmule import cli
from gemmule.bench import cnn, harness, layers
from gemmule.bench.cnn_tasks import InferCnn, TrainCnn
from gemmule.bench.layer_tasks import Conv, Pool
from gemmule.bench.networks import (
    NETWORKS,
    Convolution,
    Flatten,
    MaxPooling,
    Mean,
    Residual,
    Weights,
    shapes,
)
from gemmule.bench.norm_tasks import Norm
from gemmule.bench.outcome import OURS, OURS_STRICT, Case, Outcome
from gemmule.bench.report import in_unit
from gemmule.bench.results import Results
from gemmule.bench.summary import summarize
from gemmule.bench.tasks import CNN_SETS, DIRECTIONS, LAYER_SETS, from_json, to_json

Array = NDArray[Any]

# (batch, channels, size, filters, kernel, stride, padding, groups)
CONVS = [
    (4, 1, 12, 8, 3, 1, 0, 1),
    (2, 3, 17, 8, 7, 2, 3, 1),
    (3, 16, 9, 8, 3, 2, 1, 1),
    (3, 16, 9, 16, 3, 1, 1, 16),
    (2, 16, 9, 32, 1, 1, 0, 1),
    (2, 8, 9, 12, 3, 1, 1, 4),
]
NORMS = [("batch", 3, 5, 6), ("batch", 2, 1, 40), ("layer", 7, 1, 12)]
TRAINING = TrainCnn("lenet-5", 192, 64, 1, 0.02, 1)
INFERENCE = InferCnn("lenet-5", 8, 1)
RESIDUAL = TrainCnn("resnet-20", 16, 16, 1, 0.02, 1), InferCnn("resnet-20", 4, 1)

# The package that a contender needs, its module, and what it does.
PEERS = [
    ("torch", "torch_nhwc", ("conv", "pool", "norm", "train_cnn", "infer_cnn")),
    ("torch", "torch_nchw", ("conv", "pool", "norm", "train_cnn", "infer_cnn")),
    ("torch", "torch_compiled_nhwc", ("train_cnn", "infer_cnn")),
    ("torch", "torch_compiled_nchw", ("train_cnn", "infer_cnn")),
    ("jax", "jax_cnn", ("train_cnn", "infer_cnn")),
    ("onnxruntime", "onnx_images", ("conv", "pool", "infer_cnn")),
]


def convolved(task: Conv, x: Array, weight: Array, dz: Array) -> tuple[Array, Array, Array]:
    """Z, dX and dW by loops over taps and groups, in float64."""
    x, weight, dz = (array.astype(np.float64) for array in (x, weight, dz))
    pad, s, out = task.padding, task.stride, task.out_size
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    z, dpadded, dweight = np.zeros_like(dz), np.zeros_like(padded), np.zeros_like(weight)
    n_in, n_out = weight.shape[3], task.filters // task.groups
    for g in range(task.groups):
        ins, outs = slice(g * n_in, (g + 1) * n_in), slice(g * n_out, (g + 1) * n_out)
        for i, j in np.ndindex(task.kernel, task.kernel):
            where = np.s_[:, i : i + s * (out - 1) + 1 : s, j : j + s * (out - 1) + 1 : s, ins]
            z[..., outs] += padded[where] @ weight[outs, i, j].T
            dpadded[where] += dz[..., outs] @ weight[outs, i, j]
            dweight[outs, i, j] = np.einsum("npqo,npqc->oc", dz[..., outs], padded[where])
    return z, dpadded[:, pad : pad + task.size, pad : pad + task.size], dweight


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def played(task: Any, *modules: str) -> Outcome:
    """What these contenders did on a task in one round; each checks its results."""
    contenders = [harness.Contender(OURS if m == "ours_images" else m, m) for m in modules]
    (outcome,) = harness.compete([Case("group", "label", task, "median")], contenders, 1, 1e-4)
    return outcome


def measured(task: Any, shape_set: str, **seconds: float) -> Outcome:
    """One sample per contender; underscores in names are spaces."""
    names = {label.replace("_", " "): time for label, time in seconds.items()}
    samples = {label: [{"best": time, "median": time, "calls": 1.0}] for label, time in names.items()}
    case = Case(f"{shape_set}, 1 thread", "label", task, "best", shape_set)
    return Outcome(case, samples, [1e9], dict.fromkeys(names, "1"))


# -- tasks and cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", [Conv(*CONVS[3], True, 1), Pool("max", 2, 3, 8, 2, True, 1), TRAINING, INFERENCE]
)
def test_tasks_come_back_from_json(task: Any) -> None:
    back: Any = from_json(json.loads(json.dumps(to_json(task))))
    assert back == task and back.flops == task.flops and back.bytes == task.bytes > 0


def test_data_are_no_zeros_and_the_same_in_every_process() -> None:
    for task in (Conv(*CONVS[0], True, 1), Pool("max", 2, 3, 8, 2, True, 1)):
        for first, second in zip(task.operands(), replace(task).operands(), strict=True):
            assert first.dtype == np.float32 and np.count_nonzero(first) == first.size
            np.testing.assert_array_equal(first, second)
    for network in (TRAINING, INFERENCE):
        np.testing.assert_array_equal(network.data[0], replace(network).data[0])
        assert np.all(network.data[0] != 0)


@pytest.mark.parametrize("shape", CONVS)
def test_flops_count_the_padding(shape: tuple[int, ...]) -> None:
    n, c, h, k, kernel, stride, pad, groups = shape
    out = len(range(0, h + 2 * pad - kernel + 1, stride))
    one = 2 * n * out * out * k * kernel * kernel * c // groups
    assert Conv(*shape, False, 1).flops == one
    assert Conv(*shape, True, 1).flops == one * (1 if c <= 3 else 2)


def test_flops_of_a_network() -> None:
    layers = [26 * 26 * 32 * 9, 24 * 24 * 64 * 9 * 32, 12 * 12 * 64 * 128, 1280]
    for name, model, shape in (("20", gm.models.resnet20, None), ("18", gm.models.resnet18, (64, 64, 3))):
        assert InferCnn(f"resnet-{name}", 1, 1).flops == model(10, input_shape=shape).flops()
    assert InferCnn("mnist-cnn", 64, 1).flops == 64 * 2 * sum(layers)
    assert TrainCnn("mnist-cnn", 128, 64, 3, 0.1, 1).flops == 384 * 2 * (3 * sum(layers) - layers[0])


def test_the_sets_have_the_cases_that_were_promised() -> None:
    promised = {
        *((64, 1, 28, 32, 3, 1), (64, 32, 26, 64, 3, 1), (32, 64, 32, 64, 3, 1), (32, 128, 16, 128, 3, 1)),
        *((32, 256, 8, 256, 3, 1), (32, 64, 32, 128, 1, 1), (8, 3, 224, 64, 7, 2), (32, 64, 56, 64, 3, 1)),
        *(
            (32, 256, 14, 256, 3, 1),
            (32, 512, 7, 512, 3, 1),
            (32, 128, 28, 128, 3, 1),
            (32, 64, 32, 128, 3, 2),
        ),
    }
    cases = layers.cases(LAYER_SETS, DIRECTIONS, [2], "best", quick=False)
    assert len({case.name for case in cases}) == len(cases) == 2 * (12 + 2 + 4)
    for backward in (False, True):
        tasks = [c.task for c in cases if isinstance(c.task, Conv) and c.task.backward == backward]
        assert {(t.batch, t.channels, t.size, t.filters, t.kernel, t.stride) for t in tasks} == promised
        assert sorted(t.groups for t in tasks)[-2:] == [1, 128]
    quick = layers.cases(LAYER_SETS, DIRECTIONS, [2], "best", quick=True)
    assert {case.name for case in quick} < {case.name for case in cases}
    trained, run = (cnn.cases([name], cnn.Choice(), [2], "median") for name in CNN_SETS)
    batches = [64, 64, 128, 32]
    assert [case.task.batch for case in trained] == batches == [case.task.batch for case in run]  # type: ignore[union-attr]
    assert all(map(cnn.measures_memory, trained)) and not any(map(cnn.measures_memory, run))
    chosen = cnn.Choice(["lenet-5"], [8, 9], quick=True)
    few = [case.task for case in cnn.cases(CNN_SETS, chosen, [1], "best")]
    assert [(t.kind, t.batch) for t in few] == [  # type: ignore[union-attr]
        (kind, batch) for kind in ("train_cnn", "infer_cnn") for batch in (8, 9)
    ]


# -- checks of results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", CONVS)
def test_right_convolutions_pass_and_wrong_ones_are_found(shape: tuple[int, ...]) -> None:
    task = Conv(*shape, True, 1)
    x, weight, dz = task.operands()
    z, dx, dweight = (array.astype(np.float32) for array in convolved(task, x, weight, dz))
    given = dx if task.input_grad else None
    task.check_forward(x, weight, z)
    task.check_backward(x, weight, dz, given, dweight)
    no_first_image = convolved(task, np.concatenate([0 * x[:1], x[1:]]), weight, dz)
    for wrong in (z + 1e-3, z[:-1], no_first_image[0], np.full_like(z, np.nan)):
        with pytest.raises(ArithmeticError, match="Z"):
            task.check_forward(x, weight, wrong)
    for wrong in (1.001 * dweight, no_first_image[2], np.full_like(dweight, np.nan)):
        with pytest.raises(ArithmeticError, match="dW"):
            task.check_backward(x, weight, dz, given, wrong)
    if task.input_grad:
        for wrong in (dx + 1e-3, 0 * dx, dx[:-1]):
            with pytest.raises(ArithmeticError, match="dX"):
                task.check_backward(x, weight, dz, wrong, dweight)


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_right_pools_pass_and_wrong_ones_are_found(mode: str) -> None:
    task = Pool(mode, 2, 3, 6, 2, True, 1)
    x, dy = task.operands()
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for n, p, q, c in np.ndindex(dy.shape):
        window = np.s_[n, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2, c]
        y[n, p, q, c] = x[window].max() if mode == "max" else x[window].mean()
        chosen = x[window] == x[window].max() if mode == "max" else np.full((2, 2), 0.25)
        dx[window] = dy[n, p, q, c] * chosen
    task.check_forward(x, y)
    task.check_backward(x, dy, dx)
    for wrong in (1.0001 * y, np.full_like(y, np.nan)):
        with pytest.raises(ArithmeticError, match="Y"):
            task.check_forward(x, wrong)
    for wrong in (1.0001 * dx, np.roll(dx, 1, axis=2), np.full_like(dx, np.nan)):
        with pytest.raises(ArithmeticError, match="dX"):
            task.check_backward(x, dy, wrong)


@pytest.mark.parametrize("norm", NORMS)
def test_right_norms_pass_and_wrong_ones_are_found(norm: tuple[str, int, int, int]) -> None:
    task = Norm(*norm, True, 1)
    x, weight, bias, dy = task.operands()
    axes = tuple(range(x.ndim - 1)) if task.mode == "batch" else (-1,)
    centred = x.astype(np.float64) - x.mean(axes, keepdims=True, dtype=np.float64)
    deviation = np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5)
    normal = centred / deviation
    slope = dy * weight - (dy * weight).mean(axes, keepdims=True)
    dx = (slope - normal * (dy * weight * normal).mean(axes, keepdims=True)) / deviation
    outer = tuple(range(x.ndim - 1))
    y, dweight, dbias = normal * weight + bias, (dy * normal).sum(outer), dy.sum(outer)
    task.check_forward(x, weight, bias, y)
    task.check_backward(x, weight, dy, dx, dweight, dbias)
    for wrong in (y + 1e-4, np.full_like(y, np.nan), y[:-1]):
        with pytest.raises(ArithmeticError, match="Y"):
            task.check_forward(x, weight, bias, wrong)
    for at, name in enumerate(("dX", "dweight", "dbias")):
        results = [dx, dweight, dbias]
        results[at] = results[at] + 1e-2
        with pytest.raises(ArithmeticError, match=name):
            task.check_backward(x, weight, dy, *results)


def applied(layers: Any, h: Array, weights: Iterator[Weights], bias: bool, relu: bool) -> Array:
    """The outputs of layers of the table, in float32; without biases or activations where so asked."""
    for layer, before, after in shapes(layers, h.shape[1:]):
        if isinstance(layer, MaxPooling):
            pads = (layer.padding, layer.padding)
            padded = np.pad(h, ((0, 0), pads, pads, (0, 0)), constant_values=-np.inf)
            h = np.full((len(h), *after), -np.inf, np.float32)
            for i, j in np.ndindex(layer.size, layer.size):
                seen = padded[:, i :: layer.step, j :: layer.step][:, : after[0], : after[1]]
                h = np.maximum(h, seen)
        elif isinstance(layer, Flatten):
            h = h.reshape(len(h), -1)
        elif isinstance(layer, Mean):
            h = h.mean(axis=(1, 2))
        elif isinstance(layer, Residual):
            made = applied(layer.layers, h, weights, bias, relu)
            h = made + applied(layer.shortcut, h, weights, bias, relu)
            h = np.maximum(h, 0) if relu else h
        else:
            weight, b, norm = next(weights)
            if isinstance(layer, Convolution):
                sizes = (
                    len(h),
                    before[2],
                    before[0],
                    layer.filters,
                    layer.kernel,
                    layer.stride,
                    layer.padding,
                    1,
                )
                z = np.zeros((len(h), *after), np.float32)
                h = convolved(Conv(*sizes, False, 1), h, weight, z)[0].astype(np.float32)
            else:
                h = h @ weight.T
            if norm is not None:
                h = (h - norm.mean) / np.sqrt(norm.variance + np.float32(1e-5)) * norm.scale
            h = h + b if bias else h
            h = np.maximum(h, 0) if layer.relu and relu else h
    return h


@pytest.mark.parametrize("name", [*list(NETWORKS)[:-1], pytest.param("resnet-18", marks=pytest.mark.slow)])
def test_wrong_outputs_of_a_network_are_found(name: str) -> None:
    task = InferCnn(name, 3, 1)

    def run(bias: bool = True, relu: bool = True) -> Array:
        """By loops over taps, in float32."""
        return applied(task.net.layers, task.data[0], iter(task.weights()), bias, relu)

    task.check(run())
    spoiled = run()
    spoiled[2, 1] = np.nan
    for wrong in (run(bias=False), run(relu=False), 1.001 * run(), spoiled, run()[:-1]):
        with pytest.raises(ArithmeticError, match="outputs"):
            task.check(wrong)


# -- contenders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "module", "kinds"), PEERS)
def test_peers_compute_the_same_layers(package: str, module: str, kinds: tuple[str, ...]) -> None:
    need(package)
    if "conv" not in kinds:
        pytest.skip("networks alone")
    found = importlib.import_module(f"gemmule.bench.contenders.{module}")
    directions = (False,) if module == "onnx_images" else (False, True)
    for backward in directions:
        for shape in CONVS:
            assert found.conv(Conv(*shape, backward, 1))(1e-4)["best"] > 0  # it checks its results
        for mode in ("max", "avg"):
            assert found.pool(Pool(mode, 2, 3, 6, 2, backward, 1))(1e-4)["best"] > 0
        for norm in NORMS if "norm" in kinds else ():
            assert found.norm(Norm(*norm, backward, 1))(1e-4)["best"] > 0


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("module", ["ours_images", "ours_strict"])
def test_our_layers_are_checked_too(module: str, backward: bool) -> None:
    for shape in CONVS:
        task = Conv(*shape, backward, 1)
        found = played(task, module)
        assert not found.skipped, found.skipped
    for mode in ("max", "avg") if module == "ours_images" else ():
        pooling = Pool(mode, 2, 3, 6, 2, backward, 1)
        assert not played(pooling, module).skipped
    for norm in NORMS if module == "ours_images" else ():
        found = played(Norm(*norm, backward, 1), module)
        assert not found.skipped, found.skipped


@pytest.mark.slow
@pytest.mark.parametrize(("package", "module", "kinds"), PEERS)
def test_peers_train_and_run_the_same_networks(package: str, module: str, kinds: tuple[str, ...]) -> None:
    need(package)
    need("torch")
    found = played(INFERENCE, module)  # it checks its outputs
    assert set(found.samples) == {module}, found.skipped
    if "train_cnn" in kinds:
        whole = replace(TRAINING, batch=TRAINING.samples)  # without an order of batches to differ in
        found = played(whole, module, "torch_nhwc")
        assert {module, "torch_nhwc"} <= set(found.samples), found.skipped
        # After one update and two: each adds rounding of sums over 192 images of 28 x 28 places, like
        # random walks of sqrt(150,528) = 388 steps of eps: 5e-5 of a gradient.
        assert found.losses[module][:2] == pytest.approx(found.losses["torch_nhwc"][:2], rel=1e-3)
        assert len(played(TRAINING, module).losses[module]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("package", "module", "kinds"), PEERS)
def test_peers_train_and_run_residual_networks(package: str, module: str, kinds: tuple[str, ...]) -> None:
    """Normalizations over the batch in training, by running statistics in inference. Losses as above: sums
    over 16 images of 32 x 32, and 20 layers that pass roundings on."""
    need(package)
    training, inference = RESIDUAL
    found = played(inference, module)  # it checks its outputs
    assert set(found.samples) == {module}, found.skipped
    if "train_cnn" in kinds:
        found = played(training, module, "ours_images")
        assert {module, OURS} <= set(found.samples), found.skipped
        assert found.losses[module][:2] == pytest.approx(found.losses[OURS][:2], rel=1e-3)


@pytest.mark.parametrize("task", [TRAINING, INFERENCE, *RESIDUAL, InferCnn("resnet-18", 2, 1)])
def test_we_train_and_run_them_too(task: Any) -> None:
    found = played(task, "ours_images")
    assert set(found.samples) == {OURS}, found.skipped


# -- figures -------------------------------------------------------------------------------------------------


def test_strict_figures_are_no_peers_and_transforms_no_ceiling() -> None:
    task = Conv(2, 8, 9, 12, 3, 1, 1, 1, False, 1)
    found = measured(task, "conv forward", gemmule=1e-9, gemmule_strict=2.0, PyTorch_NHWC=1.0, other=3.0)
    assert OURS_STRICT in found.samples
    assert found.best_peer == "PyTorch NHWC" and found.ratio == pytest.approx(1e9)
    assert found.strict_ratio == pytest.approx(0.5) and found.ceiling == 1e9
    plain = measured(replace(task, kernel=1, padding=0), "conv forward", gemmule=2.0, PyTorch_NHWC=1.0)
    rows = {row.name: row for row in summarize([found, plain])}
    assert set(rows) == {"conv forward", "conv forward, no transforms"}
    assert rows["conv forward, no transforms"].geometric_mean == pytest.approx(0.5)
    assert rows["conv forward"].minimum == pytest.approx(0.5)


def test_networks_are_reported_in_images_per_second() -> None:
    found = measured(TRAINING, "cnn training", gemmule=2.0, JAX=4.0)
    assert in_unit(found, found.rate(OURS), "images/s") == pytest.approx(96)
    (row,) = summarize([found])
    assert row.name == "cnn training" and row.geometric_mean == pytest.approx(2)


def test_the_command_measures_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "layers.json", tmp_path / "layers.png"
    brief = ["--quick", "--threads", "1", "--rounds", "1", "--seconds", "1e-3"]
    files = ["--json", str(path), "--plot", str(picture)]
    assert cli.main(["bench", "layers", "--direction", "forward", *brief, *files]) == 0
    out = capsys.readouterr().out
    for text in ("conv forward, 1 thread: 64: 28x28x1-32, 3x3", "depthwise", "pool forward", "GFLOP/s"):
        assert text in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert len(Results.read(path).outcomes) == 5
    assert cli.main(["bench", "show", str(path)]) == 0


@pytest.mark.slow
def test_the_command_measures_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "cnn.json", tmp_path / "cnn.png"
    brief = ["--quick", "--threads", "1", "--rounds", "1", "--seconds", "1e-3", "--memory", "all"]
    files = ["--json", str(path), "--plot", str(picture)]
    assert cli.main(["bench", "cnn", "--network", "lenet-5", "--batch", "32", *brief, *files]) == 0
    out = capsys.readouterr().out
    for text in ("lenet-5, training", "MFLOP per image", "[images/s]", "cnn inference, 1 thread"):
        assert text in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert [outcome.case.shape_set for outcome in Results.read(path).outcomes] == [
        "cnn training",
        "cnn inference",
    ]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["layers", "--set", "conv,dense"], "'dense'.*conv, pool, norm"),
        (["layers", "--direction", "sideways"], "'sideways'.*forward, backward"),
        (["cnn", "--network", "vgg"], "'vgg'.*mnist-cnn, lenet-5"),
        (["cnn", "--set", "dreaming"], "'dreaming'.*training, inference"),
        (["cnn", "--batch", "0"], "--batch"),
        (["cnn", "--peer-python", "/no/such/python"], "--peer-python"),
        (["layers", "--json", "/no/such/folder/x.json"], "no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    options: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: Any = cli.main(["bench", *options])
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert status in (1, 2) and out == "" and re.search(match, err)
