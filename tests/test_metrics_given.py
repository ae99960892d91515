"""Metrics as users give them: names, objects, functions, bad input, functions that fail."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, classifier, fitted, weights

import gemmule as gm
from gemmule import metrics


def outputs_of_regression() -> tuple[Array, Array, Array]:
    """Targets, outputs, weights."""
    rng = np.random.default_rng(2)
    target = rng.standard_normal((200, 2))
    return target, target + 0.5 * rng.standard_normal((200, 2)), rng.integers(0, 4, 200) / 2


# -- functions, names ----------------------------------------------------------------------------------------


def worst(y_true: Array, y_pred: Array) -> float:
    return float(np.abs(y_true - y_pred).max())


def weighted_count(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    return float(len(y_true) if sample_weight is None else sample_weight.sum())


def test_functions() -> None:
    t, p, weight = outputs_of_regression()
    metric, counting = metrics.resolve([worst, weighted_count])
    assert metric.name == "worst" and metric.compiled is None
    assert metric(t, p, "mse", weight) == np.abs(t - p).max()
    assert counting(t, p, "mse") == 200 and counting(t, p, "mse", weight) == weight.sum()
    assert metrics.resolve([worst, worst]) == (gm.metrics.Function(worst),)
    renamed = gm.metrics.Function(worst, name="largest error")
    assert metrics.resolve([worst, renamed])[1].name == "largest error"
    for value in (np.float32(2), np.array(2), 2, True):
        (metric,) = metrics.resolve([lambda y, p, value=value: value])
        assert metric(t, p, "mse") == float(value)


def test_resolve() -> None:
    names = [
        "accuracy",
        "top_k",
        "top_3",
        "precision",
        "recall_micro",
        "f1_weighted",
        "auc",
        "mse",
        "mae",
        "r2",
    ]
    found = metrics.resolve(names)
    assert [metric.name for metric in found] == [name.replace("top_k", "top_5") for name in names]
    assert metrics.resolve("auc") == metrics.resolve(["auc", "auc"]) == (gm.metrics.AUC(),)
    assert metrics.resolve([]) == ()
    assert metrics.resolve(found) == found
    assert pickle.loads(pickle.dumps(found)) == found == copy.deepcopy(found)
    for metric in found:
        again = eval(repr(metric), vars(metrics))
        assert again == metric and hash(again) == hash(metric)


def test_a_metric_of_ones_own_knows_the_loss_and_the_weights() -> None:
    class Bias(gm.metrics.Metric):
        def check(self, loss_kind: str, outputs: int, labels: bool) -> None:
            if labels:
                raise ValueError("bias: not of labels")

        def value(self, target: Array, output: Array, loss_kind: str, weight: Array) -> float:
            assert loss_kind == "huber"
            return float(weight @ (output - target).mean(axis=1))

    t, p, weight = outputs_of_regression()
    (bias,) = metrics.resolve([Bias()])
    assert bias.name == "bias"
    assert bias(t, p, "huber", weight) == pytest.approx(weight @ (p - t).mean(axis=1))
    with pytest.raises(ValueError, match="not of labels"):
        bias(np.zeros(200, int), p, "huber")


# -- bad input -----------------------------------------------------------------------------------------------

Z, LABELS = np.zeros((4, 3)), np.array([0, 1, 2, 0])
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: metrics.resolve(["acuracy"]), ValueError, "unknown metric 'acuracy'; known: accuracy, top_k,"),
    (lambda: metrics.resolve(["top_0"]), ValueError, "unknown metric 'top_0'"),
    (lambda: metrics.resolve(["f1_samples"]), ValueError, "unknown metric 'f1_samples'"),
    (lambda: metrics.resolve(worst), TypeError, "metrics must be a list of names"),
    (lambda: metrics.resolve([3]), TypeError, "a metric must be a name .*, a Metric or a function, not 3"),
    (lambda: metrics.resolve([gm.metrics.AUC]), TypeError, "not <class"),
    (
        lambda: metrics.resolve([gm.metrics.F1(), gm.metrics.F1(threshold=0.3)]),
        ValueError,
        "two metrics are called",
    ),
    (lambda: metrics.resolve([gm.metrics.AUC("val_auc")]), ValueError, "histories keep that name"),
    (lambda: gm.metrics.AUC(3), TypeError, "AUC: name must be a string, not 3"),
    (lambda: gm.metrics.TopK(0), ValueError, "TopK: k is 0"),
    (lambda: gm.metrics.F1("samples"), ValueError, "unknown average of F1 'samples'; known: binary, macro"),
    (lambda: gm.metrics.F1(threshold="low"), TypeError, "f1: threshold must be a number, not 'low'"),
    (lambda: gm.metrics.TopK(5)(LABELS, Z, "cross_entropy"), ValueError, "top_5: there are 3 outputs"),
    (lambda: gm.metrics.TopK(1)(Z, Z, "bce"), ValueError, "top_1: bce decides its outputs one by one"),
    (
        lambda: gm.metrics.F1("binary")(LABELS, Z, "cross_entropy"),
        ValueError,
        "'binary' is for one output or two",
    ),
    (
        lambda: gm.metrics.F1(threshold=1)(LABELS, Z, "cross_entropy"),
        ValueError,
        "the largest of 3 outputs decides",
    ),
    (
        lambda: gm.metrics.Recall()(Z[:, :1], Z[:, :1], "mse"),
        ValueError,
        r"recall: mse has no threshold for its output; give one, as in gm\.metrics\.Recall\(threshold=0\.5\)",
    ),
    (
        lambda: gm.metrics.MSE()(LABELS, Z, "cross_entropy"),
        ValueError,
        "'mse' compares outputs with targets of",
    ),
    (
        lambda: gm.metrics.AUC()(LABELS[:3], Z, "cross_entropy"),
        gm.ShapeError,
        r"y_true has shape \(3,\), y_pred \(4, 3\)",
    ),
    (lambda: gm.metrics.AUC()(LABELS, Z[:, 0], "cross_entropy"), gm.ShapeError, r"must be \(N, outputs\)"),
    (lambda: gm.metrics.AUC()(LABELS * 1.0, Z, "cross_entropy"), gm.DTypeError, "labels are integers"),
    (lambda: gm.metrics.AUC()(LABELS + 1, Z, "cross_entropy"), ValueError, r"label 3; 3 classes have 0\.\.2"),
    (lambda: gm.metrics.AUC()(LABELS, Z, "cross_entropy", [1, 2]), gm.ShapeError, "4 samples take"),
    (lambda: gm.metrics.AUC()(["a"] * 4, Z, "cross_entropy"), gm.DTypeError, "y_true has dtype"),
    (
        lambda: gm.metrics.Metric()(LABELS, Z, "cross_entropy"),
        NotImplementedError,
        "Metric must define value",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_metric_that_fails_is_named() -> None:
    def broken(y_true: Array, y_pred: Array) -> float:
        return 1 / 0

    (metric,) = metrics.resolve([broken])
    with pytest.raises(ZeroDivisionError) as caught:
        metrics.measure(metric, LABELS, Z, "cross_entropy")
    assert caught.value.__notes__ == ["in the metric 'broken', of targets (4,) and outputs (4, 3)"]


def test_a_metric_that_fails_in_fit_leaves_the_last_complete_step(tmp_path: Path) -> None:
    """The epoch that it was to measure is trained, but not in the history nor in the checkpoint."""
    seen: list[int] = []

    def broken(y_true: Array, y_pred: Array) -> float:
        seen.append(len(y_true))
        return 1 / (3 - len(seen))

    path = tmp_path / "checkpoint"
    net, twin, before = classifier(), classifier(), classifier()
    with pytest.raises(ZeroDivisionError) as caught:
        fitted([gm.callbacks.Checkpoint(path)], epochs=5, net=net, metrics=[broken], shuffle=False)
    assert "in the metric 'broken'" in caught.value.__notes__[0]
    assert net.history is not None and net.history.epochs == 2
    fitted([], epochs=3, net=twin, shuffle=False)
    assert weights(net) == weights(twin)
    fitted([], epochs=2, net=before, shuffle=False)
    assert weights(gm.load(path)) == weights(before)
    fitted([], epochs=1, net=net)  # nothing is held


@pytest.mark.parametrize("result", [None, "0.5", [1, 2], 1j, {}])
def test_a_function_that_gives_no_number(result: Any) -> None:
    (metric,) = metrics.resolve([lambda y, p: result])
    with pytest.raises(TypeError, match="metric '<lambda>' must return a number, not"):
        metrics.measure(metric, LABELS, Z, "cross_entropy")


def test_weights_that_are_all_zero() -> None:
    for metric in metrics.resolve(["accuracy", "auc"]):
        assert math.isnan(metric(LABELS, Z, "cross_entropy", np.zeros(4)))
    assert gm.metrics.F1()(LABELS, Z, "cross_entropy", np.zeros(4)) == 0
