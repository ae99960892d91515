"""sample_weight and class_weight: what samples count in losses and metrics."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, Doubling, classification, classifier, regression, weights

import gemmule as gm

X, Y = classification()
COUNTS = np.random.default_rng(3).integers(0, 4, len(X))
REPEATED = np.repeat(np.arange(len(X)), COUNTS)


def case(loss: str) -> tuple[gm.Network, Array, Array]:
    """A network in float64 with samples and targets for it."""
    if loss in ("cross_entropy", "cross_entropy_of_softmax", "hinge"):
        net = classifier(dtype="float64")
        ends = [gm.Activation("softmax")] if "softmax" in loss else []
        return gm.Network([*net, *ends], dtype="float64"), X, Y
    x, y = regression(len(X))
    net = gm.Network.mlp([5, 12, 2], activation="tanh", rng=1, dtype="float64")
    return net, x, {"bce_with_logits": y > 0, "poisson": np.abs(y)}.get(loss, y)


def fit(net: gm.Network, x: Array, y: Array, loss: Any, **options: Any) -> gm.History:
    loss = loss.removesuffix("_of_softmax") if isinstance(loss, str) else loss
    return net.fit(x, y, loss=loss, **{"batch_size": None, "epochs": 5, **options})


def assert_close(net: gm.Network, other: gm.Network, rtol: float = 1e-9) -> None:
    """The same sums in another order, some hundred roundings of float64 after each other."""
    for (name, p), (_, q) in zip(net.named_parameters(), other.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol, err_msg=name)


# -- sample_weight -------------------------------------------------------------------------------------------

LOSSES = ["mse", "mae", "huber", "poisson", "bce_with_logits", "cross_entropy", "hinge"]


@pytest.mark.parametrize("loss", [*LOSSES, "cross_entropy_of_softmax"])
@pytest.mark.parametrize("form", ["stepped", "riding", "copied"])
def test_whole_weights_are_repeated_rows(
    isa: str, loss: str, form: str, force_training: Callable[[str], None]
) -> None:
    """On full batches: the same training, losses and metrics, weight 0 being no row."""
    metric = "accuracy" if loss.startswith(("cross", "hinge", "bce")) else "mse"
    options = {"optimizer": gm.SGD(0.1, momentum=0.9), "metrics": [metric, "r2" if metric == "mse" else "f1"]}
    net, x, y = case(loss)
    other = copy.deepcopy(net)
    force_training(form)
    weighted = fit(net, x, y, loss, sample_weight=COUNTS, **copy.deepcopy(options))
    repeated = fit(other, x[REPEATED], y[REPEATED], loss, **options)
    assert_close(net, other)
    for key in weighted:
        np.testing.assert_allclose(weighted[key], repeated[key], rtol=1e-9, err_msg=key)
    got = net.evaluate(x, y, sample_weight=COUNTS, metrics=options["metrics"])
    want = other.evaluate(x[REPEATED], y[REPEATED], metrics=options["metrics"])
    assert got == pytest.approx(want, rel=1e-9)


def test_whole_weights_are_repeated_rows_for_lbfgs() -> None:
    pytest.importorskip("scipy")
    net, x, y = case("cross_entropy")
    other = copy.deepcopy(net)
    fit(net, x, y, "cross_entropy", optimizer=gm.LBFGS(), sample_weight=COUNTS)
    fit(other, x[REPEATED], y[REPEATED], "cross_entropy", optimizer=gm.LBFGS())
    assert_close(net, other, 1e-6)  # line searches magnify the last bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [8, 32, None])
@pytest.mark.parametrize("given", [{"sample_weight": np.ones(len(X))}, {"class_weight": {0: 1}}])
def test_weights_of_one_change_no_bit(isa: str, dtype: str, batch_size: Any, given: dict[str, Any]) -> None:
    net = classifier(dtype=dtype)
    other = copy.deepcopy(net)
    options = {"batch_size": batch_size, "metrics": ["accuracy"], "optimizer": "adam"}
    weighted, plain = (fit(n, X, Y, "cross_entropy", **options, **o) for n, o in ((net, given), (other, {})))
    assert weights(net) == weights(other)
    assert dict(weighted) == dict(plain)


def test_only_ratios_of_weights_count(isa: str) -> None:
    nets = [classifier() for _ in range(3)]
    for net, scale in zip(nets, (1.0, 2.0**-900, 2.0**900), strict=True):
        fit(net, X, Y, "cross_entropy", sample_weight=COUNTS * scale, batch_size=32)
    assert weights(nets[0]) == weights(nets[1]) == weights(nets[2])


def test_a_loss_is_the_weighted_mean_of_each_batch() -> None:
    """By hand: the gradient is sum w g / sum w of the batch, the loss sum w l / sum w of the epoch."""
    rng = np.random.default_rng(0)
    weight, order = rng.random(len(X)), rng.permutation(len(X))
    net = classifier(dtype="float64")
    other = copy.deepcopy(net)
    history = fit(
        net, X, Y, "cross_entropy", optimizer=gm.SGD(0.2), epochs=1, batch_size=32, shuffle=order[None],
        sample_weight=weight,
    )  # fmt: skip
    total = 0.0
    for start in range(0, len(X), 32):
        rows = order[start : start + 32]
        w = weight[rows]
        z = other.forward(X[rows])
        grad = np.zeros_like(z)
        for i, row in enumerate(rows):
            loss, dz = gm.losses.cross_entropy(z[i : i + 1], Y[row : row + 1])
            total += w[i] * loss
            grad[i] = w[i] / w.sum() * dz[0]
        other.zero_grad()
        other.backward(grad)
        for _, p in other.named_parameters():
            p -= 0.2 * p.grad
    assert_close(net, other)
    assert history["loss"][0] == pytest.approx(total / weight.sum(), rel=1e-12)


def test_a_batch_without_weight_has_the_gradient_0(isa: str) -> None:
    """Whatever its targets are. Momenta and decay go on, as for any gradient of 0."""
    x, y = regression(64)
    y = y.copy()
    y[32:] = np.nan
    weight = np.r_[np.ones(32), np.zeros(32)]
    for batch_size in (8, 32):
        net = gm.Network.mlp([5, 8, 2], rng=0)
        other = copy.deepcopy(net)
        options = {"loss": "mse", "optimizer": gm.SGD(0.1), "batch_size": batch_size, "shuffle": False}
        history = net.fit(x, y, sample_weight=weight, metrics=["mse"], **options)
        plain = other.fit(x[:32], y[:32], **options)
        assert weights(net) == weights(other)
        assert history["loss"] == plain["loss"] == [pytest.approx(history["mse"][0], rel=1e-6)]
        assert not any(p.grad.any() for p in net.parameters())
        net.fit(x, y, loss="mse", optimizer="adam", batch_size=batch_size, sample_weight=weight)
        assert all(np.isfinite(p).all() for p in net.parameters())


def test_weights_do_not_depend_on_threads() -> None:
    found = []
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        net = classifier()
        fit(net, X, Y, "cross_entropy", batch_size=32, sample_weight=COUNTS, class_weight="balanced")
        found.append(weights(net))
    gm.set_num_threads(None)
    assert all(bits == found[0] for bits in found)


def test_a_weighted_fit_resumes_bit_for_bit(tmp_path: Path) -> None:
    """From the middle of an epoch, with its sums of losses and weights."""
    path = tmp_path / "fit.checkpoint"
    x = np.random.default_rng(1).standard_normal((200, 2))
    y = (x[:, 0] > 0).astype(int)
    options: dict[str, Any] = {
        "batch_size": 32, "epochs": 4, "sample_weight": np.random.default_rng(2).random(200),
        "class_weight": {1: 3.0}, "metrics": ["accuracy", "f1"], "validation_split": 0.2,
    }  # fmt: skip

    class StopError(Exception):
        pass

    class Dying(gm.callbacks.Checkpoint):
        def write(self, *arguments: Any) -> None:
            super().write(*arguments)
            if arguments[0].steps == 7:
                raise StopError

    net, whole = classifier(), classifier()
    with pytest.raises(StopError):
        fit(net, x, y, "cross_entropy", callbacks=[Dying(path, steps=7)], **options)
    resumed = classifier()
    history = fit(resumed, x, y, "cross_entropy", resume=path, **options)
    assert dict(history) == dict(fit(whole, x, y, "cross_entropy", **options))
    assert weights(resumed) == weights(whole)
    del options["class_weight"]
    with pytest.raises(ValueError, match="weights 'of samples and classes', this fit has 'of samples'"):
        fit(resumed, x, y, "cross_entropy", resume=path, **options)


def test_weights_of_a_network_with_python_layers() -> None:
    net = gm.Network([gm.Dense(2, 3), Doubling()], rng=0, dtype="float64")
    other = copy.deepcopy(net)
    fit(net, X, Y, "cross_entropy", sample_weight=COUNTS)
    fit(other, X[REPEATED], Y[REPEATED], "cross_entropy")
    assert_close(net, other)


def test_extreme_data_under_weights_still_commit_whole_steps(isa: str) -> None:
    """The bound that lets updates ride on the gradients is of the weighted ones."""
    x, y = regression(64)
    x = x * np.float32(1e30)
    weight = np.r_[np.full(63, 1e-12), 1.0]
    net = gm.Network.mlp([5, 8, 2], rng=0)
    before = weights(net)
    with pytest.raises(gm.DivergenceError):
        net.fit(x, y, loss="mse", optimizer=gm.SGD(1e6), sample_weight=weight)
    assert weights(net) == before


# -- class_weight --------------------------------------------------------------------------------------------


def test_class_weight_is_sample_weight_by_class(isa: str) -> None:
    by_class = {0: 0.5, 2: 4.0}
    by_sample = np.array([0.5, 1, 4])[Y]
    signs, ones = np.sign(X[:, 0]).astype(int), np.eye(3)[Y]
    for loss, y, given, same in [
        ("cross_entropy", Y, by_class, by_sample),
        ("cross_entropy", ones, by_class, by_sample),
        ("kl_divergence", ones, by_class, by_sample),
        ("hinge", Y, by_class, by_sample),
        ("hinge", signs, {-1: 3.0}, np.where(signs < 0, 3.0, 1)),
        ("hinge", signs > 0, {0: 3.0}, np.where(signs < 0, 3.0, 1)),
        ("bce_with_logits", signs > 0, {1: 3.0}, np.where(signs > 0, 3.0, 1)),
    ]:
        outputs = 1 if np.ndim(y) == 1 and set(np.unique(y)) <= {-1, 0, 1} and y is not Y else 3
        net = gm.Network.mlp([2, 8, outputs], rng=0)
        other = copy.deepcopy(net)
        options = {"batch_size": 32, "validation_data": (X[:40], y[:40])}
        classes = fit(net, X, y, loss, class_weight=given, **options)
        options["validation_data"] = (X[:40], y[:40], same[:40])
        samples = fit(other, X, y, loss, sample_weight=same, **options)
        assert weights(net) == weights(other), loss
        assert dict(classes) == dict(samples), loss


def test_balanced_is_of_the_rows_trained_on() -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    want = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=Y)
    net, other = classifier(), classifier()
    fit(net, X, Y, "cross_entropy", class_weight="balanced")
    fit(other, X, Y, "cross_entropy", class_weight=dict(enumerate(want)))
    assert weights(net) == weights(other)


def test_balanced_counts_sample_weights() -> None:
    """So that whole weights are repeated rows here too. A class without samples has no weight to find."""
    net, other = (gm.Network.mlp([2, 8, 4], rng=0, dtype="float64") for _ in range(2))
    fit(net, X, Y, "cross_entropy", sample_weight=COUNTS, class_weight="balanced")
    fit(other, X[REPEATED], Y[REPEATED], "cross_entropy", class_weight="balanced")
    assert_close(net, other)


def test_classes_weigh_losses_and_samples_weigh_metrics_too() -> None:
    weight = np.random.default_rng(5).random(len(X))
    seen: list[Any] = []

    def watched(y_true: Array, y_pred: Array, sample_weight: Any = None) -> float:
        seen.append(sample_weight)
        return 0.0

    net = classifier()
    options = {"metrics": ["accuracy", "mean_rank", watched][::2], "optimizer": gm.SGD(0.0)}
    history = fit(net, X, Y, "cross_entropy", class_weight={0: 5.0}, **options)
    assert seen.pop() is None
    assert history["accuracy"][-1] == pytest.approx(net.evaluate(X, Y)["accuracy"])
    history = fit(net, X, Y, "cross_entropy", class_weight={0: 5.0}, sample_weight=weight, **options)
    np.testing.assert_array_equal(seen.pop(), weight)
    want = net.evaluate(X, Y, sample_weight=weight)
    assert history["accuracy"][-1] == pytest.approx(want["accuracy"])
    want = net.evaluate(X, Y, sample_weight=weight * np.where(Y == 0, 5, 1))
    assert history["loss"][-1] == pytest.approx(want["loss"])


def test_classes_of_a_table_go_by_their_names() -> None:
    names = np.array(["left", "middle", "right"])
    table = {"a": X[:, 0], "b": X[:, 1], "side": names[Y]}
    net, other = classifier(), classifier()
    net.fit(table, "side", loss="cross_entropy", class_weight={"right": 2.0})
    other.fit(X, Y, loss="cross_entropy", class_weight={2: 2.0})
    assert weights(net) == weights(other)
    with pytest.raises(ValueError, match="names class 'top'; the classes are 'left', 'middle', 'right'"):
        net.fit(table, "side", loss="cross_entropy", class_weight={"top": 2.0})


# -- validation ----------------------------------------------------------------------------------------------


def test_held_out_rows_keep_their_weights() -> None:
    weight = np.random.default_rng(7).random(len(X))
    net = classifier()
    history = fit(
        net, X, Y, "cross_entropy", sample_weight=weight, validation_split=0.3, metrics=["accuracy", "f1"]
    )
    other, held = classifier(), []

    def keep(y_true: Array, y_pred: Array, sample_weight: Array) -> float:
        held.append((y_true, y_pred, sample_weight))
        return 0.0

    fit(other, X, Y, "cross_entropy", sample_weight=weight, validation_split=0.3, metrics=[keep])
    y_true, y_pred, sample_weight = held[-1]
    assert len(y_true) == round(0.3 * len(X))
    accuracy = gm.metrics.Accuracy()(y_true, y_pred, "cross_entropy", sample_weight)
    assert history["val_accuracy"][-1] == pytest.approx(accuracy)
    z = y_pred - np.log(np.exp(y_pred).sum(axis=1, keepdims=True))
    loss = -np.average(z[np.arange(len(z)), y_true], weights=sample_weight)
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_metrics_and_losses_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    weight = np.random.default_rng(8).random(len(X))
    net = classifier(dtype="float64")
    fit(net, X, Y, "cross_entropy")
    got = net.evaluate(X, Y, sample_weight=weight, metrics=["accuracy", "f1"])
    probabilities, decided = net.predict_proba(X), net.predict(X).argmax(axis=1)
    assert got["loss"] == pytest.approx(sklearn.log_loss(Y, probabilities, sample_weight=weight))
    assert got["accuracy"] == pytest.approx(sklearn.accuracy_score(Y, decided, sample_weight=weight))
    f1 = sklearn.f1_score(Y, decided, average="macro", sample_weight=weight)
    assert got["f1"] == pytest.approx(f1)


def test_training_is_pytorchs_with_weighted_classes() -> None:
    """CrossEntropyLoss(weight=...), batches of 32 in a given order, SGD with momentum, float64."""
    torch = pytest.importorskip("torch")
    order = np.stack([np.random.default_rng(e).permutation(len(X)) for e in range(3)])
    by_class = [0.5, 1.0, 4.0]
    net = classifier(dtype="float64")
    peer = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), peer.parameters(), strict=True):
            theirs.copy_(torch.tensor(np.array(ours)))
    fit(
        net, X, Y, "cross_entropy", class_weight=dict(enumerate(by_class)), shuffle=order, epochs=3,
        batch_size=32, optimizer=gm.SGD(0.1, momentum=0.9),
    )  # fmt: skip
    loss_of = torch.nn.CrossEntropyLoss(weight=torch.tensor(by_class, dtype=torch.float64))
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.1, momentum=0.9)
    for epoch in order:
        for rows in np.split(epoch, range(32, len(X), 32)):
            optimizer.zero_grad()
            loss_of(peer(torch.tensor(X[rows].astype(float))), torch.tensor(Y[rows])).backward()
            optimizer.step()
    for ours, theirs in zip(net.parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


# -- bad input -----------------------------------------------------------------------------------------------

N = len(X)
FEW = np.where(np.arange(N) == 0, 1.0, 0.0)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sample_weight": np.ones(N - 1)}, gm.ShapeError, r"sample_weight has shape \(89,\); 90 samples"),
    ({"sample_weight": np.ones((N, 1))}, gm.ShapeError, r"sample_weight has shape \(90, 1\)"),
    ({"sample_weight": "balanced"}, gm.DTypeError, "sample_weight has dtype"),
    ({"sample_weight": -np.ones(N)}, ValueError, "sample_weight holds -1 at 0; weights are finite"),
    ({"sample_weight": np.full(N, np.nan)}, ValueError, "sample_weight holds nan at 0"),
    ({"sample_weight": np.full(N, np.inf)}, ValueError, "sample_weight holds inf at 0"),
    ({"sample_weight": np.zeros(N)}, ValueError, "sample_weight sums to 0"),
    ({"sample_weight": np.full(N, 1e308)}, ValueError, "sample_weight sums to inf"),
    (
        {"sample_weight": FEW, "shuffle": np.ones((5, N), int)},
        ValueError,
        "shuffle has for epoch 1 all have weight 0",
    ),
    (
        {"sample_weight": FEW, "validation_split": 0.5},
        ValueError,
        "sample_weight of the (remaining|held-out) samples sums to 0",
    ),
    ({"validation_data": (X, Y, np.ones(3))}, gm.ShapeError, r"validation sample_weight has shape \(3,\)"),
    ({"validation_data": (X, Y, X, Y)}, TypeError, r"a pair \(X, y\) or \(X, y, sample_weight\)"),
    ({"class_weight": "even"}, ValueError, "class_weight is 'even'"),
    ({"class_weight": [1, 2, 3]}, TypeError, "class_weight must be a dict or 'balanced', not"),
    ({"class_weight": {3: 1.0}}, ValueError, "names class 3; the classes are 0, 1, 2"),
    ({"class_weight": {"a": 1.0}}, ValueError, "names class 'a'"),
    ({"class_weight": {True: 1.0}}, ValueError, "names class True"),
    ({"class_weight": {1: -1.0}}, ValueError, "class_weight of 1 is -1"),
    ({"class_weight": {1: "much"}}, TypeError, "class_weight of 1 must be a number"),
    ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "weights of its samples and classes sums to 0"),
    (
        {"y": np.eye(3)[Y], "loss": "mse", "class_weight": {1: 2.0}},
        ValueError,
        "class_weight weighs classes, and mse of 3 outputs has no class a sample",
    ),
    (
        {"y": np.eye(3)[Y], "loss": "bce_with_logits", "class_weight": {1: 2.0}},
        ValueError,
        "bce_with_logits of 3 outputs has no class",
    ),
    (
        {"y": np.full((N, 3), 1 / 3), "class_weight": {1: 2.0}},
        ValueError,
        r"y\[0\] is not of one class",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_weights_change_nothing(options: dict[str, Any], error: type[Exception], message: str) -> None:
    net = classifier()
    before = weights(net)
    with pytest.raises(error, match=message):
        net.fit(**{"X": X, "y": Y, "loss": "cross_entropy", "epochs": 5, **options})
    assert weights(net) == before
    assert net.loss is None and net.history is None


def test_evaluate_checks_its_weights() -> None:
    with pytest.raises(gm.ShapeError, match=r"evaluate: sample_weight has shape \(2,\)"):
        classifier().evaluate(X, Y, loss="cross_entropy", sample_weight=[1, 2])
