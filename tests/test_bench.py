"""The benchmarks' own logic: shapes, data, turns, summaries, files. Speeds are nobody's business here."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import environment

import gemmule as gm
from gemmule import bench, cli
from gemmule.bench import harness, summary
from gemmule.bench.gemm import set_cases, square_cases
from gemmule.bench.outcome import OURS, Case, Outcome
from gemmule.bench.results import Results
from gemmule.bench.sample import repeated, timed
from gemmule.bench.shapes import NAMES, Shape, shape_set
from gemmule.bench.tasks import Gemm, Train, from_json, to_json
from gemmule.errors import FileError

START = Path(bench.__file__).with_name("start_worker.py")


def outcome(shape: Shape, name: str, ratio: float | None, rounds: int = 2) -> Outcome:
    """One in which the best peer has 1 GFLOP/s and gemmule `ratio` of that."""
    case = Case(f"{name}, float32, 1 thread", shape.label, task(shape), "best", name)
    seconds = case.task.flops / 1e9
    samples = {"slow": [sample(3 * seconds)] * rounds, "NumPy": [sample(seconds)] * rounds}
    if ratio is not None:
        samples[OURS] = [sample(seconds / ratio)] * rounds
    return Outcome(case, samples, [2e9] * rounds, {"NumPy": "2"}, {"torch mm": "absent"})


def task(shape: Shape) -> Gemm:
    return Gemm(shape.m, shape.n, shape.k, "float32", 1, shape.trans_a, shape.trans_b)


def sample(seconds: float) -> dict[str, float]:
    return {"best": seconds, "median": seconds, "calls": 1}


# -- shapes and data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_set_has_every_shape_once(name: str) -> None:
    shapes = shape_set(name)
    assert len({shape.label for shape in shapes}) == len(shapes)
    assert all(min(shape.m, shape.n, shape.k) >= 1 for shape in shapes)
    quick = shape_set(name, quick=True)
    assert 0 < len(quick) < len(shapes) / 5
    assert set(quick) <= set(shapes)


def test_squares_run_from_16_to_4096() -> None:
    sizes = [shape.m for shape in shape_set("square")]
    assert sizes == sorted(sizes)
    assert {16, 17, 31, 127, 128, 509, 1021, 4096} <= set(sizes)
    assert all(shape.m == shape.n == shape.k for shape in shape_set("square"))


def test_a_layer_is_one_product_forward_and_two_backward() -> None:
    shapes = {shape.label: shape for shape in shape_set("dense")}
    assert shapes["Z 64: 784-256"][1:] == (64, 256, 784, False, True)  # (64, 784) times W (256, 784)^T
    assert shapes["dX 64: 784-256"][1:] == (64, 784, 256, False, False)  # (64, 256) times W
    assert shapes["dW 64: 784-256"][1:] == (256, 784, 64, True, False)  # dZ (64, 256)^T times (64, 784)
    batches = {int(label.split()[1][:-1]) for label in shapes}
    assert batches == {1, 2, 8, 31, 32, 64, 100, 128, 256, 1000}


def test_skinny_shapes_are_skinny_on_every_side() -> None:
    shapes = shape_set("skinny")
    assert all(1 <= min(shape.m, shape.n, shape.k) <= 16 for shape in shapes)
    for side in range(3):
        assert any(shape[1 + side] == 1 for shape in shapes)


def test_the_f64_set_is_float64_and_the_others_what_is_asked() -> None:
    cases = set_cases(["f64", "square"], ["float32"], [1, 2], "best", quick=True)
    types = {(case.shape_set, case.task.dtype, case.task.threads) for case in cases}
    assert types == {(name, t, n) for name, t in (("f64", "float64"), ("square", "float32")) for n in (1, 2)}


def test_an_unknown_set_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"'cubic'.*square, dense, skinny, f64"):
        shape_set("cubic")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", "gemm", "--set", "square,cubic"])
    assert re.search(r"--set: 'cubic'.*square, dense, skinny, f64", capsys.readouterr().err)


@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (True, False), (False, True)])
def test_operands_are_views_of_normal_deviates_and_results_are_checked(trans_a: bool, trans_b: bool) -> None:
    product = Gemm(5, 7, 3, "float32", 1, trans_a, trans_b)
    a, b, c = product.operands()
    assert (a.shape, b.shape, c.shape) == ((5, 3), (3, 7), (5, 7))
    assert (a.flags.f_contiguous, b.flags.f_contiguous) == (trans_a, trans_b)
    assert np.all(a != 0) and np.all(b != 0) and np.isnan(c).all()
    with pytest.raises(ArithmeticError, match="5 x 7 x 3"):
        product.check(a, b, c)
    np.matmul(a, b, out=c)
    product.check(a, b, c)
    c[2, 3] += 1e-3
    with pytest.raises(ArithmeticError):
        product.check(a, b, c)


def test_products_in_bfloat16_have_its_bound() -> None:
    product = Gemm(5, 7, 300, "float32", 1, precision="bf16")
    a, b, c = product.operands()
    gm.ops.gemm(a, b, out=c, precision="bf16")
    product.check(a, b, c)
    with pytest.raises(ArithmeticError):
        replace(product, precision="full").check(a, b, c)
    with pytest.raises(ArithmeticError):
        product.check(a, b, 1.1 * c + 1)


def test_tasks_come_back_from_json() -> None:
    training = Train((2, 10, 1), 200, 200, 3, "mse", "sgd", 0.1, 1)
    for one in (Gemm(3, 4, 5, "float64", 2, trans_b=True), training):
        back = from_json(json.loads(json.dumps(to_json(one))))
        assert back == one and back.flops == one.flops


# -- turns ---------------------------------------------------------------------------------------------------


def test_short_statements_are_repeated_within_a_turn() -> None:
    calls: list[None] = []
    turn = repeated("call(None)", call=calls.append)
    warm = len(calls)
    found = turn(1e-6)
    assert "calls" in found and found["calls"] == len(calls) - warm > 100
    assert 0 < found["best"] <= found["median"] < 1e-3


def test_a_figure_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ArithmeticError, match="nan"):
        timed(lambda: math.nan)(0.0)


def test_blocks_keep_the_order_and_their_limits() -> None:
    cases = square_cases([8] * (harness.BLOCK_CASES + 1) + [4096, 8], ["float32"], [1], "best")
    parts = list(harness.blocks(iter(cases)))
    assert [case for part in parts for case in part] == cases
    assert [len(part) for part in parts] == [harness.BLOCK_CASES, 2, 1]


def test_a_peers_interpreter_needs_no_gemmule() -> None:
    code = (
        "import runpy, sys; sys.modules['gemmule'] = None; sys.argv = ['', 'numpy_blas']\n"
        f"runpy.run_path({str(START)!r}, run_name='__main__')"
    )
    one = to_json(Gemm(4, 5, 6, "float32", 1))
    messages = [{"setup": [one, {**one, "dtype": "nonsense"}]}, {"turn": 0.0}, {"quit": True}]
    result = subprocess.run(
        [sys.executable, "-c", code],
        input="".join(json.dumps(message) + "\n" for message in messages),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    ready, played = map(json.loads, result.stdout.splitlines())
    assert ready["version"].startswith("NumPy")
    assert ready["errors"][0] is None and "nonsense" in ready["errors"][1]
    assert played["samples"][0]["best"] > 0 and "nonsense" in played["samples"][1]["error"]


def test_contenders_play_what_they_take_and_the_absent_are_named() -> None:
    cases = set_cases(["square"], ["float32"], [1], "best", quick=True)[:2]
    contenders = [
        harness.Contender(OURS, "ours"),
        harness.Contender("NumPy", "numpy_blas", takes=lambda task: isinstance(task, Gemm) and task.m == 16),
        harness.Contender("dead", "no_such_contender"),
    ]
    first, second = harness.compete(cases, contenders, rounds=2, seconds=1e-4)
    assert set(first.samples) == {OURS, "NumPy"} and set(second.samples) == {OURS}
    assert all(len(samples) == 2 for samples in first.samples.values())
    assert len(first.ceiling_rounds) == 2 and first.ceiling is not None and first.ceiling > 0
    assert "no_such_contender" in first.skipped["dead"]
    assert first.best_peer == "NumPy" and first.ratio is not None
    assert second.best_peer is None and second.ratio is None


# -- summaries and files -------------------------------------------------------------------------------------


def test_ratios_are_to_the_best_peer_and_the_ceiling_is_the_highest_rate() -> None:
    found = outcome(Shape("9", 9, 9, 9), "square", 1.25)
    assert found.best_peer == "NumPy"
    assert found.ratio == pytest.approx(1.25)
    assert found.share == pytest.approx(1.25 / 2)
    assert outcome(Shape("9", 9, 9, 9), "square", 4.0).ceiling == pytest.approx(4e9)


def test_geometric_mean_percentile_and_minimum() -> None:
    ratios = {str(i): 1.0 + i / 20 for i in range(21)}  # 1, 1.05, ..., 2: twenty steps
    found = summary.condense("float32, 1 thread", "square", {**ratios, "0": 0.5})
    assert found.shapes == 21
    assert found.geometric_mean == pytest.approx(math.prod({**ratios, "0": 0.5}.values()) ** (1 / 21))
    assert found.fifth_percentile == pytest.approx(1.05)
    assert (found.minimum, found.worst) == (0.5, "0")


def test_classes_of_a_summary() -> None:
    square = [outcome(shape, "square", 1.5) for shape in shape_set("square")]
    dense = [outcome(shape, "dense", 1.2) for shape in shape_set("dense")]
    dense[0] = outcome(shape_set("dense")[0], "dense", None)  # gemmule failed: no ratio
    rows = {row.name.strip(): row for row in summary.summarize(square + dense)}
    assert rows["square"].shapes == len(square) and rows["dense"].shapes == len(dense) - 1
    assert rows["square, 32 to 128"].shapes == sum(32 <= found.m <= 128 for found in shape_set("square"))
    small = sum(4096 <= s.m * s.n * s.k <= 20_000 for s in shape_set("square") + shape_set("dense"))
    assert rows["of 4,096 to 20,000 multiply-adds"].shapes == small > 0
    assert rows["of fewer or more"].shapes + small == rows["square and dense"].shapes
    assert rows["dense"].geometric_mean == pytest.approx(1.2)
    assert "square and dense" not in {row.name for row in summary.summarize(dense)}
    assert summary.summarize([outcome(Shape("64", 64, 64, 64), "", 1.0)]) == []


def test_the_worst_twentieth_is_measured_again_and_its_rounds_are_joined() -> None:
    shapes = shape_set("square")
    found = [outcome(shape, "square", 1.0 + i) for i, shape in enumerate(shapes)]
    again = summary.worst(found)
    assert again == found[: math.ceil(len(shapes) / 20)]
    assert summary.worst([outcome(shapes[0], "square", None)]) == []
    results = Results("GFLOP/s", [OURS, "NumPy", "slow"], {}, {}, found)
    results.join([outcome(shapes[0], "square", 3.0, rounds=4)])
    assert len(results.outcomes) == len(shapes)
    assert {len(rounds) for rounds in results.outcomes[0].samples.values()} == {6}
    assert len(results.outcomes[0].ceiling_rounds) == 6
    assert results.outcomes[0].ratio == pytest.approx(3.0)
    assert results.outcomes[1:] == found[1:]


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    outcomes = [outcome(shape, "dense", 1.5) for shape in shape_set("dense", quick=True)]
    results = Results("GFLOP/s", [OURS, "NumPy", "slow"], {"cpu": "x"}, {"float32": 1.0}, outcomes)
    path = tmp_path / "results.json"
    results.write(path)
    assert Results.read(path) == results
    content = json.loads(path.read_text())
    assert content["summary"][0]["geometric_mean"] == pytest.approx(1.5)
    assert content["cases"][0]["ratio_to_best_peer"] == pytest.approx(1.5)
    for text in ("[]", "{}", "no JSON", '{"cases": [{}]}'):
        path.write_text(text)
        with pytest.raises(FileError, match="gemmule bench"):
            Results.read(path)


def test_the_command_measures_writes_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, bars, points = tmp_path / "gemm.json", tmp_path / "bars.png", tmp_path / "points.svg"
    brief = ["--threads", "1", "--rounds", "1", "--seconds", "1e-4"]
    command = ["bench", "gemm", "--sizes", "8,20", "--dtypes", "float32", *brief, "--json", str(path)]
    assert cli.main([*command, "--plot", str(bars)]) == 0
    out = capsys.readouterr().out
    for text in ("FMA ceilings", "float32, 1 thread: 20", "vs best peer", f"wrote {path}", f"wrote {bars}"):
        assert text in out
    assert bars.read_bytes()[:4] == b"\x89PNG"

    outcomes = [outcome(shape, name, 1.5) for name in ("square", "dense") for shape in shape_set(name)]
    machine = Results.read(path).machine
    Results("GFLOP/s", [OURS, "NumPy", "slow"], machine, {"float32": 1.0}, outcomes).write(path)
    assert cli.main(["bench", "show", str(path), "--plot", str(points)]) == 0
    out = capsys.readouterr().out
    assert "square and dense" in out and "torch mm: absent" in out
    assert "</svg>" in points.read_text()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--quick"], "--quick"),
        (["--set", "f64", "--dtypes", "float32"], "--dtypes"),
        (["--set", "square,f64", "--bf16"], "--bf16"),
        (["--dtypes", "float64", "--bf16"], "--bf16"),
        (["--peer-python", "/no/such/python"], "--peer-python"),
        (["--json", "/no/such/folder/x.json"], "no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    options: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "gemm", *options]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and match in err
