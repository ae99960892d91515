"""The benchmark of training and inference: its cases, its guards against skipped work, memory, figures."""

import importlib.util
import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gemmule import cli
from gemmule.bench import harness, memory, train
from gemmule.bench.outcome import OURS, OURS_BF16, Case, Outcome
from gemmule.bench.report import print_shares
from gemmule.bench.results import Results
from gemmule.bench.sample import KEPT_LOSSES, Turn, fastest, timed
from gemmule.bench.tasks import OPTIMIZERS, TRAINING_SETS, Infer, Train, from_json, to_json
from gemmule.bench.train import Choice

Array = NDArray[Any]

REGRESSION = Train((5, 16, 8, 2), 96, 96, 40, "mse", "sgd", 0.01, 1)
CLASSES = Train((8, 16, 4), 200, 32, 3, "cross_entropy", "adam", 0.01, 1)
INFERENCE = Infer((20, 16, 8, 3), 7, 1)

# The package that a contender needs, and its module.
PEERS = [
    ("torch", "torch_eager"),
    ("torch", "torch_fused"),
    ("torch", "torch_compiled"),
    ("jax", "jax_scan"),
    ("sklearn", "sklearn_mlp"),
    ("onnxruntime", "onnx_runtime"),
]


def played(task: Train | Infer, *modules: str) -> Outcome:
    """What these contenders did on a task in one round, under the names of their modules; gemmule's is its
    own."""
    contenders = [harness.Contender(OURS if module == "ours" else module, module) for module in modules]
    (outcome,) = harness.compete([Case("group", "label", task, "median")], contenders, 1, 1e-4)
    return outcome


def measured(task: Train | Infer = CLASSES, **seconds: float) -> Outcome:
    """One sample per contender; underscores in names are spaces."""
    samples = {
        label.replace("_", " "): [{"best": time, "median": time, "calls": 1.0}]
        for label, time in seconds.items()
    }
    return Outcome(Case("small networks, sgd, 1 thread", "label", task, "median", "small"), samples, [1e12])


def reference_losses(task: Train) -> list[float]:
    """Of full-batch training for the mean squared error in float64, epoch by epoch, by PyTorch's formulas."""
    x, y = (array.astype(np.float64) for array in task.data)
    parameters = [array.astype(np.float64) for layer in task.weights() for array in layer]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    losses = []
    for t in range(1, task.epochs + 1):
        h = [x]
        for i in range(0, len(parameters), 2):
            z = h[-1] @ parameters[i].T + parameters[i + 1]
            h.append(np.maximum(z, 0) if i + 2 < len(parameters) else z)
        error = h.pop() - y
        losses.append(float(np.mean(error**2)))
        dz = 2 * error / error.size
        gradients: list[Array] = []
        for i in reversed(range(0, len(parameters), 2)):
            gradients[:0] = [dz.T @ h[-1], dz.sum(axis=0)]
            dz = (dz @ parameters[i]) * (h.pop() > 0)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            if task.optimizer == "adam":
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= task.lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            else:
                m *= task.momentum
                m += g
                p -= task.lr * m
    return losses


# -- tasks and cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [REGRESSION, CLASSES, INFERENCE])
def test_tasks_are_the_same_in_every_process(task: Train | Infer) -> None:
    back = from_json(json.loads(json.dumps(to_json(task))))
    assert back == task and isinstance(back, Train | Infer)
    for ours, theirs in zip(task.data, back.data, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for (weight, bias), (again, bias_again) in zip(task.weights(), back.weights(), strict=True):
        assert weight.dtype == bias.dtype == np.float32
        np.testing.assert_array_equal(weight, again)
        np.testing.assert_array_equal(bias, bias_again)
    assert [weight.shape[::-1] for weight, _ in task.weights()] == [*pairwise(task.sizes)]


def test_flops_are_those_of_the_matrix_products() -> None:
    sizes = (784, 256, 128, 10)
    assert Infer(sizes, 32, 1).flops == 32 * 2 * (784 * 256 + 256 * 128 + 128 * 10)
    assert Train(sizes, 100, 10, 3, "cross_entropy", "sgd", 0.1, 1).flops == 300 * 1_007_104


def test_wrong_outputs_are_found() -> None:
    def run(skip_bias: bool = False, skip_relu: bool = False) -> Array:
        (h,) = INFERENCE.data
        for i, (weight, bias) in enumerate(INFERENCE.weights()):
            h = np.maximum(h, 0) if i and not skip_relu else h
            h = h @ weight.T + (0 if skip_bias else bias)
        return h

    INFERENCE.check(run())
    spoiled = run()
    spoiled[3, 1] = np.nan
    for wrong in (run(skip_bias=True), run(skip_relu=True), 1.001 * run(), spoiled, run()[:-1]):
        with pytest.raises(ArithmeticError, match="outputs"):
            INFERENCE.check(wrong)


def test_the_sets_have_the_cases_that_were_promised() -> None:
    cases = {name: train.cases(name, Choice(), [2], "median") for name in TRAINING_SETS}
    mnist = [case.task for case in cases["mnist"] if isinstance(case.task, Train)]
    assert {(t.batch, t.optimizer) for t in mnist} == {
        (batch, optimizer) for batch in (16, 64, 256, 1024) for optimizer in OPTIMIZERS
    }
    assert {(t.samples, t.sizes, t.epochs) for t in mnist} == {(60_000, (784, 256, 128, 10), 1)}
    small = {case.task.sizes: case.task for case in cases["small"] if isinstance(case.task, Train)}
    assert small[2, 10, 1].epochs == 200 and not small[2, 10, 1].shuffle
    assert small[8, 64, 64, 4].batch == 32 and small[8, 64, 64, 4].shuffle
    (wide,) = (case.task for case in cases["wide"])
    assert isinstance(wide, Train) and wide.sizes[1:5] == (2048,) * 4 and wide.batch == 256
    assert [c.task.batch for c in cases["inference"] if isinstance(c.task, Infer)] == [1, 32, 256, 1024]
    assert [case.task.optimizer for case in filter(train.measures_memory, cases["mnist"])] == [*OPTIMIZERS]  # type: ignore[union-attr]
    everyone = train.contenders("python")
    in_bf16 = next(contender for contender in everyone if contender.label == OURS_BF16)
    taken = {name for name in cases for case in cases[name] if in_bf16.takes(case.task)}
    assert taken == {"wide"}


def test_a_choice_of_cases() -> None:
    chosen = Choice(optimizers=["momentum"], batches=[8, 9])
    tasks = [case.task for case in train.cases("mnist", chosen, [1, 2], "best")]
    assert [(t.batch, t.threads, t.optimizer) for t in tasks if isinstance(t, Train)] == [
        (batch, threads, "momentum") for threads in (1, 2) for batch in (8, 9)
    ]
    quick = Choice(quick=True)
    for name in TRAINING_SETS:
        less, all_of_it = (train.cases(name, choice, [1], "median") for choice in (quick, Choice()))
        assert 0 < sum(case.task.flops for case in less) < sum(case.task.flops for case in all_of_it)


# -- turns ---------------------------------------------------------------------------------------------------


def test_the_first_losses_are_kept_the_warm_up_among_them() -> None:
    losses = iter(range(100))
    turn = timed(lambda: float(next(losses)))
    assert turn(0.0).get("losses") == [0, 1]
    for _ in range(KEPT_LOSSES):
        sample = turn(0.0)
    assert sample.get("losses") == [*range(KEPT_LOSSES)]
    assert "variant" not in sample and timed(lambda: 1.0, "other way")(0.0).get("variant") == "other way"


def test_the_fastest_variant_is_chosen_and_failures_are_out() -> None:
    def taking(seconds: float) -> Turn:
        return lambda _: {"best": seconds, "median": seconds, "calls": 1}

    def failing() -> Turn:
        raise RuntimeError("no such way")

    assert fastest({"slow": lambda: taking(2.0), "bad": failing, "quick": lambda: taking(1.0)}) == "quick"
    with pytest.raises(RuntimeError, match="no such way"):
        fastest({"bad": failing, "worse": failing})


def test_who_skips_work_is_out() -> None:
    found = measured(gemmule=1.0, near=1.0, idle=1.0, lost=1.0, short=1.0)
    found.losses.update(
        {
            OURS: [2.3, 1.2, 0.5],
            "near": [2.28, 1.25, 0.52],
            "idle": [2.3, 2.3, 2.3],  # no updates
            "lost": [2.3, math.nan, 0.5],
            "short": [2.35],  # fewer calls
        }
    )
    harness.compare_losses(found)
    assert set(found.samples) == {OURS, "near", "short"}
    assert found.skipped["idle"] == "loss 2.3 where gemmule has 1.2, call 2"
    assert "nan" in found.skipped["lost"]
    alone = measured(PyTorch=1.0)
    alone.losses["PyTorch"] = [5.0]
    harness.compare_losses(alone)
    assert "PyTorch" in alone.samples


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_our_losses_are_those_of_a_float64_reference(optimizer: str) -> None:
    task = replace(REGRESSION, optimizer=optimizer)
    check_losses(task, played(task, "ours"), OURS)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("package", "module"), [peer for peer in PEERS if peer[1] != "onnx_runtime"])
def test_peers_do_the_same_training(package: str, module: str, optimizer: str) -> None:
    need(package)
    task = replace(REGRESSION, optimizer=optimizer)
    check_losses(task, played(task, module), module)
    shuffled = replace(CLASSES, optimizer=optimizer)
    found = played(shuffled, "ours", module)
    assert set(found.samples) == {OURS, module}, found.skipped  # the guard let it pass


@pytest.mark.parametrize(
    ("package", "module"), [peer for peer in PEERS if peer[1] not in ("torch_fused", "sklearn_mlp")]
)
def test_peers_do_the_same_inference(package: str, module: str) -> None:
    need(package)
    found = played(INFERENCE, "ours", module)  # each checks its outputs
    assert set(found.samples) == {OURS, module}, found.skipped


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def check_losses(task: Train, found: Outcome, label: str) -> None:
    """The last of each of two calls. Each of 80 updates adds rounding of the longest sum, which is over the
    batch: 80 * 96 eps = 9e-4."""
    assert label in found.samples, found.skipped
    expected = reference_losses(replace(task, epochs=2 * task.epochs))
    assert found.losses[label][0] == pytest.approx(expected[task.epochs - 1], rel=1e-3)
    second = found.losses[label][1:2]
    assert second == pytest.approx(expected[-1:], rel=1e-3) or (label, second) == ("sklearn_mlp", [])


# -- memory --------------------------------------------------------------------------------------------------


def test_the_peak_of_memory_rises_and_begins_anew() -> None:
    before = memory.reset_peak()
    block = np.ones(32 << 20, np.uint8)
    raised = memory.peak() - before
    assert raised >= 30 << 20
    del block
    assert memory.peak() >= before


def test_memory_is_that_of_a_process_of_its_own() -> None:
    found = played(CLASSES, "ours")
    broken = harness.Contender("broken", "no_such_contender")
    found.samples["broken"] = [*found.samples[OURS]]
    harness.measure_memory(found, [harness.Contender(OURS, "ours"), broken])
    assert set(found.memory) == {OURS} and 0 < found.memory[OURS] < 200e6
    assert "no_such_contender" in found.skipped["broken's memory"]


# -- figures -------------------------------------------------------------------------------------------------


def test_bfloat16_is_neither_a_peer_nor_the_ceiling() -> None:
    found = measured(gemmule=2.0, gemmule_bf16=1e-9, JAX=3.0, PyTorch=4.0)
    assert found.best_peer == "JAX" and found.ratio == pytest.approx(1.5)
    assert found.ceiling == 1e12
    assert found.share_of("PyTorch") == pytest.approx(0.5)
    assert found.share_of("ONNX Runtime") is None


def test_times_over_each_peers_are_printed_with_their_mean(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [measured(gemmule=1.0, JAX=2.0, PyTorch=4.0), measured(gemmule=1.0, JAX=8.0)]
    outcomes[1] = replace(outcomes[1], case=replace(outcomes[1].case, label="another"))
    print_shares(Results("ms", [OURS, "JAX", "scikit-learn", "PyTorch"], {}, {}, outcomes))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line]
    rows = {cells[0]: [cell.strip() for cell in cells if cell.strip()][1:] for cells in lines}
    assert rows["gemmule's time over theirs: small, 1 thread"] == ["JAX", "PyTorch"]
    assert rows["small networks, sgd, 1 thread: label"] == ["0.5", "0.25"]
    assert rows["small networks, sgd, 1 thread: another"] == ["0.125", "-"]
    assert rows["geometric mean"] == ["0.25", "0.25"]


def test_losses_variants_and_memory_are_kept_in_the_file(tmp_path: Path) -> None:
    found = measured(gemmule=1.0, JAX=2.0)
    found.losses[OURS], found.variants["JAX"], found.memory["JAX"] = [1.0, 0.5], "take, unroll 4", 10**8
    path = tmp_path / "train.json"
    results = Results("ms", [OURS, "JAX"], {}, {}, [found])
    results.write(path)
    assert Results.read(path) == results
    content = json.loads(path.read_text())
    (case,) = content["cases"]
    assert case["time_over_theirs"] == {"JAX": 0.5}
    for name in ("losses", "variants", "memory"):  # as before they were measured
        del case[name]
    path.write_text(json.dumps(content))
    assert Results.read(path).outcomes[0].losses == {}


def test_the_command_trains_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "train.json", tmp_path / "train.png"
    brief = ["--quick", "--threads", "1", "--rounds", "1", "--seconds", "1e-3", "--memory", "all"]
    files = ["--json", str(path), "--plot", str(picture)]
    sets = ["--set", "small,inference", "--optimizer", "sgd", "--batch", "3"]
    assert cli.main(["bench", "train", *sets, *brief, *files]) == 0
    out = capsys.readouterr().out
    for text in ("2-10-1, 200 steps", "8-64-64-4, 640 steps", "inference, 1 thread: batch 3", "[MB] peak"):
        assert text in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    results = Results.read(path)
    assert [len(outcome.losses.get(OURS, [])) >= 2 for outcome in results.outcomes] == [True, True, False]
    assert all(outcome.memory[OURS] > 0 for outcome in results.outcomes)


def test_the_command_reads_idx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, shape, high in (("images-idx3", (40, 28, 28), 256), ("labels-idx1", (40,), 10)):
        head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        content = head + rng.integers(high, size=shape, dtype=np.uint8).tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(content)
    brief = ["--threads", "1", "--rounds", "1", "--seconds", "1e-3", "--memory", "none"]
    chosen = ["--set", "mnist", "--optimizer", "momentum", "--batch", "16", "--data-dir", str(tmp_path)]
    assert cli.main(["bench", "train", *chosen, *brief]) == 0
    assert "784-256-128-10, 40 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--set", "mnist,cubic"], "'cubic'.*mnist, small, wide, inference"),
        (["--optimizer", "sgd,newton"], "'newton'.*sgd, momentum, adam"),
        (["--batch", "0"], "--batch"),
        (["--memory", "much"], "--memory"),
        (["--data-dir", "/no/such/folder"], "--data-dir"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    options: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: Any = cli.main(["bench", "train", *options])
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and re.search(match, err)
