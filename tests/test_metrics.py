"""Metrics: definitions written out sample by sample, scikit-learn's figures, thresholds, NaN."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers import Array, classification, classifier

import gemmule as gm
from gemmule import metrics

RTOL = 1e-12  # sums of at most 200 terms of one sign, in another order


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class Case:
    """Targets and raw outputs under a loss, and how a plain reading of them goes."""

    def __init__(self, kind: str, classes: int, rows: int = 200, labels: bool = True) -> None:
        rng = np.random.default_rng(classes)
        self.kind = kind
        self.weight = rng.integers(0, 4, rows) / 2  # zeros among them
        z = np.round(rng.standard_normal((rows, classes)), 1)  # with equal outputs, as AUC has to bear
        if classes == 1 or kind in ("bce", "bce_with_logits", "hinge"):
            truth = (z + rng.standard_normal(z.shape) > 0.2).astype(float)
            self.truth: Array = truth.astype(int)
            self.target: Array = 2 * truth - 1 if kind == "hinge" else truth
            self.output = sigmoid(z) if kind == "bce" else z
            self.decided: Array = (z > 0).astype(int)
            self.score = self.output
            if classes == 1:
                self.truth, self.decided, self.score = self.truth[:, 0], self.decided[:, 0], self.score[:, 0]
            return
        # Of more than two classes the last never occurs and is hardly ever decided for.
        met = classes - (classes > 2)
        z[:, met:] -= 3
        self.truth = (z[:, :met] + rng.standard_normal((rows, met))).argmax(axis=1)
        self.target = self.truth.astype(np.int64) if labels else np.eye(classes)[self.truth]
        self.output = softmax(z) if kind == "cross_entropy_probabilities" else z
        self.decided = self.output.argmax(axis=1)
        self.score = softmax(z)


CASES = {
    "logit": lambda: Case("bce_with_logits", 1),
    "probability": lambda: Case("bce", 1),
    "hinge": lambda: Case("hinge", 1),
    "labels": lambda: Case("cross_entropy", 4),
    "labels-probabilities": lambda: Case("cross_entropy_probabilities", 4),
    "one-hot": lambda: Case("cross_entropy", 4, labels=False),
    "two-classes": lambda: Case("cross_entropy", 2),
    "several-logits": lambda: Case("bce_with_logits", 3),
}
WEIGHTED = [False, True]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def pairs(case: Case, weight: Array) -> dict[int, tuple[float, float, float, bool]]:
    """By class: the weight of hits, of decisions for it, of its samples; whether it occurs."""
    true, decided = case.truth, case.decided
    if true.ndim == 2:
        columns = [(c, true[:, c] == 1, decided[:, c] == 1) for c in range(true.shape[1])]
    else:
        columns = [(c, true == c, decided == c) for c in range(max(case.output.shape[1], 2))]
    found = {}
    for c, is_c, said_c in columns:
        hit = math.fsum(w for w, a, b in zip(weight, is_c, said_c, strict=True) if a and b)
        said = math.fsum(w for w, b in zip(weight, said_c, strict=True) if b)
        actual = math.fsum(w for w, a in zip(weight, is_c, strict=True) if a)
        found[c] = (hit, said, actual, bool(true.ndim == 2 or is_c.any() or said_c.any()))
    return found


def figure(name: str, hit: float, said: float, actual: float) -> float:
    above, below = {"precision": (hit, said), "recall": (hit, actual), "f1": (2 * hit, said + actual)}[name]
    return above / below if below else 0.0


def averages(case: Case) -> list[str | None]:
    return [None, "macro", "micro", "weighted", *(["binary"] if case.output.shape[1] < 3 else [])]


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_counts_of_classes(case: Case, name: str, weighted: bool) -> None:
    weight = case.weight if weighted else np.ones(len(case.output))
    found = {c: row[:3] for c, row in pairs(case, weight).items() if row[3]}
    figures = {c: figure(name, *row) for c, row in found.items()}
    support = {c: row[2] for c, row in found.items()}
    sums = [math.fsum(row[i] for row in found.values()) for i in range(3)]
    want = {
        "binary": figures.get(1, 0.0),
        "macro": math.fsum(figures.values()) / len(figures),
        "micro": figure(name, *sums),
        "weighted": math.fsum(figures[c] * support[c] for c in found) / math.fsum(support.values()),
    }
    want[None] = want["binary" if case.output.shape[1] == 1 else "macro"]
    for average in averages(case):
        metric = {"precision": gm.metrics.Precision, "recall": gm.metrics.Recall, "f1": gm.metrics.F1}[name](
            average
        )
        assert metric.name == (f"{name}_{average}" if average else name)
        got = metric(case.target, case.output, case.kind, case.weight if weighted else None)
        assert got == pytest.approx(want[average], rel=RTOL), average
        assert metrics.resolve([metric.name]) == (metric,)


@pytest.mark.parametrize("weighted", WEIGHTED)
def test_accuracy(case: Case, weighted: bool) -> None:
    weight = case.weight if weighted else np.ones(len(case.output))
    right = (case.truth == case.decided).reshape(len(weight), -1)
    want = math.fsum(w * sum(row) / len(row) for w, row in zip(weight, right.tolist(), strict=True))
    got = gm.metrics.Accuracy()(case.target, case.output, case.kind, case.weight if weighted else None)
    assert got == pytest.approx(want / math.fsum(weight), rel=RTOL)


def area(positive: Array, score: Array, weight: Array) -> float:
    """Over all pairs of a positive and a negative sample, the share in which the positive one's is above."""
    won = total = 0.0
    for i, j in itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive)):
        total += weight[i] * weight[j]
        won += weight[i] * weight[j] * ((score[i] > score[j]) + (score[i] == score[j]) / 2)
    return won / total if total else math.nan


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("name", ["logit", "probability", "hinge", "several-logits", "two-classes", "three"])
def test_auc(name: str, weighted: bool) -> None:
    case = CASES[name]() if name != "three" else Case("cross_entropy", 4)
    if name == "three":  # without the class that does not occur; the others stay as they are
        case.output, case.score = case.output[:, :3], softmax(case.output[:, :3])
    weight = case.weight if weighted else np.ones(len(case.output))
    outputs = case.output.shape[1]
    truth = case.truth if case.truth.ndim == 2 or outputs == 1 else np.eye(outputs)[case.truth]
    truth, score = truth.reshape(len(weight), -1), case.score.reshape(len(weight), -1)
    want = math.fsum(area(truth[:, c] == 1, score[:, c], weight) for c in range(outputs)) / outputs
    got = gm.metrics.AUC()(case.target, case.output, case.kind, case.weight if weighted else None)
    assert got == pytest.approx(want, rel=RTOL) and 0.5 < got < 1


def test_auc_of_a_class_alone_is_nan_and_says_nothing() -> None:
    """scikit-learn warns and gives NaN too; warnings are errors in these tests."""
    auc, z = gm.metrics.AUC(), np.linspace(-1, 1, 6)[:, None]
    for target in (np.zeros((6, 1)), np.ones((6, 1))):
        assert math.isnan(auc(target, z, "bce_with_logits"))
    labels = np.array([0, 0, 1, 1, 0, 1])
    assert math.isnan(auc(labels, np.random.default_rng(0).random((6, 3)), "cross_entropy"))
    halves = np.array([0, 0, 0, 1, 1, 1.0])
    assert math.isnan(auc(halves, z, "bce_with_logits", np.array([1, 1, 1, 0, 0, 0])))
    assert auc(halves, z, "bce_with_logits") == 1 and auc(1 - halves, z, "bce_with_logits") == 0
    assert auc(halves, np.zeros((6, 1)), "bce_with_logits") == 0.5
    assert auc(halves, z, "mse") == 1  # ranks need no threshold


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("one_hot", [False, True])
def test_top_k(one_hot: bool, weighted: bool) -> None:
    case = Case("cross_entropy", 6, labels=not one_hot)
    weight = case.weight if weighted else np.ones(len(case.output))
    for k in range(1, 7):
        # Python's sort is stable: of equal outputs the first comes first.
        best = [sorted(range(6), key=lambda c, row=row: -row[c])[:k] for row in case.output.tolist()]
        right = [label in row for label, row in zip(case.truth, best, strict=True)]
        want = math.fsum(w for w, hit in zip(weight, right, strict=True) if hit) / math.fsum(weight)
        top = gm.metrics.TopK(k)
        assert top(case.target, case.output, case.kind, case.weight if weighted else None) == pytest.approx(
            want
        )
        assert top.name == f"top_{k}" and metrics.resolve([f"top_{k}"]) == (top,)
    top, accuracy = gm.metrics.TopK(1), gm.metrics.Accuracy()
    assert top(case.target, case.output, case.kind) == accuracy(case.target, case.output, case.kind)


def regression(outputs: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(outputs)
    target = rng.standard_normal((200, outputs))
    return target, target + 0.5 * rng.standard_normal((200, outputs)), rng.integers(0, 4, 200) / 2


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("outputs", [1, 3])
def test_errors_of_regression(outputs: int, weighted: bool) -> None:
    t, p, given = regression(outputs)
    w = given if weighted else np.ones(200)
    columns = range(outputs)

    def total(values: Array) -> float:
        return math.fsum((w * values).tolist())

    want = {
        "mse": sum(total((p - t)[:, j] ** 2) for j in columns) / total(np.ones(200)) / outputs,
        "mae": sum(total(abs((p - t)[:, j])) for j in columns) / total(np.ones(200)) / outputs,
        "r2": sum(
            1 - total((p - t)[:, j] ** 2) / total((t[:, j] - total(t[:, j]) / total(np.ones(200))) ** 2)
            for j in columns
        )
        / outputs,
    }
    for metric in metrics.resolve(list(want)):
        assert metric(t, p, "mse", given if weighted else None) == pytest.approx(want[metric.name], rel=1e-10)
        if outputs == 1 and not weighted:
            assert metric(t[:, 0], p, "huber") == metric(t, p, "mse")


def test_r2_of_targets_that_are_all_equal() -> None:
    r2, same = gm.metrics.R2(), np.full((5, 1), 3.0)
    assert r2(same, same, "mse") == 1 and r2(same, same + 1, "mse") == 0
    assert math.isnan(r2(same[:1], same[:1], "mse"))


def test_nan_gives_nan_and_infinity_passes() -> None:
    for metric in metrics.resolve(["accuracy", "f1", "auc"]):
        assert math.isnan(metric(np.array([0, 1]), np.array([[0.5], [np.nan]]), "bce"))
    assert math.isnan(gm.metrics.TopK(1)(np.array([0, 1]), np.array([[0, 1], [np.nan, 0]]), "cross_entropy"))
    assert gm.metrics.MSE()(np.zeros((2, 1)), np.array([[np.inf], [0]]), "mse") == math.inf
    assert gm.metrics.Accuracy()(np.array([0, 1]), np.array([[-np.inf], [np.inf]]), "bce_with_logits") == 1


def test_thresholds() -> None:
    z, y = np.array([[-1.0], [0.2], [0.6], [2.0]]), np.array([0, 0, 1, 1])
    assert gm.metrics.Precision()(y, z, "bce_with_logits") == pytest.approx(2 / 3)
    assert gm.metrics.Precision(threshold=0.5)(y, z, "bce_with_logits") == 1
    assert gm.metrics.Recall(threshold=1)(y, z, "mse") == 0.5
    assert gm.metrics.Accuracy(threshold=1)(y, z, "mse") == 0.75


@pytest.mark.parametrize(
    ("kind", "net"),
    [
        ("cross_entropy", lambda: classifier(dtype="float64")),
        ("cross_entropy", lambda: gm.Network.mlp([2, 8, 3], output="softmax", rng=0)),
        ("bce_with_logits", lambda: gm.Network.mlp([2, 8, 3], rng=0)),
        ("bce", lambda: gm.Network.mlp([2, 8, 1], output="sigmoid", rng=0)),
        ("mse", lambda: gm.Network.mlp([2, 8, 3], rng=0)),
    ],
)
def test_what_the_compiled_loop_sums_is_the_same(kind: str, net: Callable[[], gm.Network]) -> None:
    x, labels = classification()
    network = net()
    outputs = network.output_shape((2,))[0]
    y = labels if kind == "cross_entropy" else np.eye(3)[labels][:, :outputs]
    names = ["accuracy", *(["mse", "mae"] if y.ndim == 2 else [])]
    got = network.evaluate(x, y, loss=kind, metrics=names)
    actual = gm.losses.resolve(kind).kind(network.output_activation())
    for metric in metrics.resolve(names):
        assert metric.compiled == metric.name
        assert metric(y, network.predict(x), actual) == pytest.approx(got[metric.name], rel=1e-6)


# -- scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_figures_of_classes(case: Case, weighted: bool) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    weight = case.weight if weighted else None
    several = case.truth.ndim == 2
    scores = {"precision": peer.precision_score, "recall": peer.recall_score, "f1": peer.f1_score}
    for name, average in itertools.product(scores, averages(case)):
        if average == "binary" and several:
            continue
        metric = {"precision": gm.metrics.Precision, "recall": gm.metrics.Recall, "f1": gm.metrics.F1}[name](
            average
        )
        same = average or ("binary" if case.output.shape[1] == 1 else "macro")
        want = scores[name](case.truth, case.decided, average=same, sample_weight=weight, zero_division=0)
        got = metric(case.target, case.output, case.kind, weight)
        assert got == pytest.approx(want, rel=RTOL), (name, average)
    if not several:  # scikit-learn's wants all outputs of a sample right
        want = peer.accuracy_score(case.truth, case.decided, sample_weight=weight)
        assert gm.metrics.Accuracy()(case.target, case.output, case.kind, weight) == pytest.approx(
            want, rel=RTOL
        )


@pytest.mark.parametrize("weighted", WEIGHTED)
def test_scikit_learns_area(weighted: bool) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    for name in ("logit", "probability", "hinge", "several-logits"):
        case = CASES[name]()
        weight = case.weight if weighted else None
        want = peer.roc_auc_score(case.truth, case.score, sample_weight=weight)
        assert gm.metrics.AUC()(case.target, case.output, case.kind, weight) == pytest.approx(
            want, rel=RTOL
        ), name
    case = Case("cross_entropy", 4)
    weight, z = case.weight if weighted else None, case.output[:, :3]
    want = peer.roc_auc_score(case.truth, softmax(z), multi_class="ovr", sample_weight=weight)
    assert gm.metrics.AUC()(case.target, z, "cross_entropy", weight) == pytest.approx(want, rel=RTOL)
    assert gm.metrics.AUC()(case.target, softmax(z), "cross_entropy_probabilities", weight) == pytest.approx(
        want
    )


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_area_of_one_class_is_nan() -> None:
    peer = pytest.importorskip("sklearn.metrics")
    assert math.isnan(peer.roc_auc_score(np.zeros(4), np.arange(4)))


@pytest.mark.parametrize("weighted", WEIGHTED)
def test_scikit_learns_top_k_and_errors(weighted: bool) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    case = Case("cross_entropy", 6)
    weight = case.weight if weighted else None
    output = case.output + np.random.default_rng(0).random(case.output.shape) / 100  # no two equal
    for k in range(1, 6):
        want = peer.top_k_accuracy_score(case.truth, output, k=k, sample_weight=weight, labels=range(6))
        assert gm.metrics.TopK(k)(case.target, output, case.kind, weight) == pytest.approx(want, rel=RTOL)
    t, p, given = regression(3)
    weight = given if weighted else None
    for name, score in [
        ("mse", peer.mean_squared_error),
        ("mae", peer.mean_absolute_error),
        ("r2", peer.r2_score),
    ]:
        (metric,) = metrics.resolve(name)
        assert metric(t, p, "mse", weight) == pytest.approx(score(t, p, sample_weight=weight), rel=1e-10)
    same = np.full((5, 1), 3.0)
    for p in (same, same + 1):
        assert gm.metrics.R2()(same, p, "mse") == peer.r2_score(same, p)
