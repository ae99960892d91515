"""Losses against PyTorch's and scikit-learn's, those with parameters, and those of the user's own."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from helpers import Array, classification, classifier, regression, regressor, weights

import gemmule as gm

RNG = np.random.default_rng(11)
N, CLASSES = 37, 9
P, T = RNG.standard_normal((N, CLASSES)) * 2, RNG.standard_normal((N, CLASSES))
UNIT = RNG.uniform(0.01, 0.99, (N, CLASSES))
SHARES = RNG.dirichlet(np.ones(CLASSES), N)
SHARES[0] = np.eye(CLASSES)[2]
SIGNS, COUNTS = RNG.choice([-1.0, 1.0], (N, CLASSES)), RNG.poisson(2, (N, CLASSES)).astype(float)
LABELS = RNG.integers(0, CLASSES, N)


# -- against PyTorch and scikit-learn ------------------------------------------------------------------------

# (loss, prediction, target, PyTorch's in terms of torch.nn.functional F, prediction p and target t)
PEERS: dict[str, tuple[gm.losses.Loss, Array, Array, Callable[..., Any]]] = {
    "mse": (gm.losses.MSE(), P, T, lambda F, p, t: F.mse_loss(p, t)),
    "half_mse": (gm.losses.HalfMSE(), P, T, lambda F, p, t: F.mse_loss(p, t) / 2),
    "mae": (gm.losses.MAE(), P, T, lambda F, p, t: F.l1_loss(p, t)),
    "huber": (gm.losses.Huber(), P, T, lambda F, p, t: F.huber_loss(p, t)),
    "huber of 0.3": (gm.losses.Huber(0.3), P, T, lambda F, p, t: F.huber_loss(p, t, delta=0.3)),
    "bce": (gm.losses.BCE(), UNIT, SHARES, lambda F, p, t: F.binary_cross_entropy(p, t)),
    "bce_with_logits": (
        gm.losses.BCEWithLogits(), P, SHARES, lambda F, p, t: F.binary_cross_entropy_with_logits(p, t),
    ),
    "cross_entropy": (gm.losses.CrossEntropy(), P, LABELS, lambda F, p, t: F.cross_entropy(p, t)),
    "cross_entropy of rows": (gm.losses.CrossEntropy(), P, SHARES, lambda F, p, t: F.cross_entropy(p, t)),
    "cross_entropy of probabilities": (
        gm.losses.CrossEntropy(False), SHARES[:, ::-1] * 0.9 + 0.1 / CLASSES, LABELS,
        lambda F, p, t: F.nll_loss(p.log(), t),
    ),
    "smoothed": (
        gm.losses.CrossEntropy(label_smoothing=0.1), P, LABELS,
        lambda F, p, t: F.cross_entropy(p, t, label_smoothing=0.1),
    ),
    "smoothed rows": (
        gm.losses.CrossEntropy(label_smoothing=0.3), P, SHARES,
        lambda F, p, t: F.cross_entropy(p, t, label_smoothing=0.3),
    ),
    "hinge": (gm.losses.Hinge(), P, SIGNS, lambda F, p, t: F.relu(1 - t * p).mean()),
    "kl_divergence": (
        gm.losses.KLDivergence(), P, SHARES,
        lambda F, p, t: F.kl_div(F.log_softmax(p, dim=1), t, reduction="batchmean"),
    ),
    "kl_divergence of probabilities": (
        gm.losses.KLDivergence(False), UNIT, SHARES,
        lambda F, p, t: F.kl_div(p.log(), t, reduction="batchmean"),
    ),
    "poisson": (gm.losses.Poisson(), P, COUNTS, lambda F, p, t: F.poisson_nll_loss(p, t)),
    "poisson of rates": (
        gm.losses.Poisson(log_input=False, eps=1e-3), UNIT, COUNTS,
        lambda F, p, t: F.poisson_nll_loss(p, t, log_input=False, eps=1e-3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_value_and_gradient_are_pytorchs(isa: str, name: str) -> None:
    """Of float64. Rows of nine terms of order 10 at most, a few roundings each."""
    torch = pytest.importorskip("torch")
    loss, p, t, theirs = PEERS[name]
    value, grad = loss(p, t)
    tensor = torch.tensor(p.copy(), requires_grad=True)
    want = theirs(torch.nn.functional, tensor, torch.tensor(t))
    want.backward()
    assert value == pytest.approx(want.item(), rel=1e-13)
    np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_hinge_is_scikit_learns(isa: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    assert gm.losses.hinge(P, LABELS)[0] == pytest.approx(
        sklearn.hinge_loss(LABELS, P, labels=range(CLASSES))
    )
    one, sign = P[:, :1], SIGNS[:, 0]
    assert gm.losses.hinge(one, sign)[0] == pytest.approx(sklearn.hinge_loss(sign, one[:, 0]))


# -- parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 64])
def test_label_smoothing(isa: str, dtype: type, smoothing: float, classes: int) -> None:
    rng = np.random.default_rng(2)
    z = (rng.standard_normal((21, classes)) * 3).astype(dtype)
    labels = rng.integers(0, classes, 21)
    p = reference.softmax(z.astype(float)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    for target in (labels, np.eye(classes)[labels], rng.dirichlet(np.ones(classes), 21)):
        t = target if target.ndim == 1 else target.astype(dtype)
        wide = t if t.ndim == 1 else t.astype(float)
        loss, grad = gm.losses.cross_entropy(z, t, label_smoothing=smoothing)
        want, want_grad = reference.cross_entropy(z.astype(float), wide, smoothing)
        assert loss == pytest.approx(want, rel=64 * eps)
        np.testing.assert_allclose(grad, want_grad, rtol=64 * eps, atol=32 * eps / 21)
        loss, grad = gm.losses.cross_entropy(p, t, from_logits=False, label_smoothing=smoothing)
        want, want_grad = reference.cross_entropy_probabilities(p.astype(float), wide, smoothing)
        assert loss == pytest.approx(want, rel=64 * eps)
        np.testing.assert_allclose(grad, want_grad, rtol=64 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 1), (40, 1), (3, 7), (9, 33)])
def test_parameters_of_elementwise_losses(isa: str, dtype: type, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    p, t = ((rng.standard_normal(shape) * 2).astype(dtype) for _ in range(2))
    counts, rates = rng.poisson(3, shape).astype(dtype), rng.uniform(0.1, 5, shape).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    wide = [a.astype(float) for a in (p, t, counts, rates)]
    for got, want in [
        *(
            (gm.losses.huber(p, t, delta), reference.huber(wide[0], wide[1], delta))
            for delta in (0.01, 0.5, 100)
        ),
        (
            gm.losses.poisson(rates, counts, log_input=False, eps=0.01),
            reference.poisson(wide[3], wide[2], False, 0.01),
        ),
    ]:
        assert got[0] == pytest.approx(want[0], rel=64 * eps, abs=64 * eps)
        np.testing.assert_allclose(got[1], want[1], rtol=64 * eps, atol=64 * eps / p.size * shape[1])


PARAMETERS = [
    (gm.losses.Huber(0.3), regression()[1]),
    (gm.losses.Poisson(), np.abs(regression()[1])),
    (gm.losses.CrossEntropy(label_smoothing=0.2), np.eye(2)[np.arange(96) % 2]),
    (gm.losses.CrossEntropy(label_smoothing=0.2), np.arange(96) % 2),
    (gm.losses.KLDivergence(), np.full((96, 2), 0.5)),
    (gm.losses.Hinge(), np.arange(96) % 2),
]


@pytest.mark.parametrize(("loss", "y"), PARAMETERS, ids=[repr(loss) for loss, _ in PARAMETERS])
def test_fit_is_forward_loss_backward(isa: str, loss: gm.losses.Loss, y: Array) -> None:
    """One step of fit against the same by hand: the parameter reaches the compiled loop."""
    x, _ = regression()
    net = gm.Network.mlp([5, 8, 2], rng=0, dtype="float64")
    other = copy.deepcopy(net)
    history = net.fit(x, y, loss=loss, optimizer=gm.SGD(0.1), batch_size=None)
    value, dz = loss(other.forward(x), y)
    other.backward(dz)
    gm.SGD(0.1).step(other)
    assert history["loss"] == [pytest.approx(value, rel=1e-12)]
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-14)
    assert net.evaluate(x, y)["loss"] == pytest.approx(loss(net.predict(x), y)[0], rel=1e-12)


@pytest.mark.parametrize("loss", [gm.losses.CrossEntropy(label_smoothing=0.1), gm.losses.KLDivergence()])
def test_a_softmax_before_it_is_joined(isa: str, loss: gm.losses.Loss) -> None:
    """The same training from logits and from probabilities, which divide by nothing."""
    x, y = classification()
    target = np.eye(3)[y] * 0.7 + 0.1
    logits = classifier(dtype="float64")
    softmax = gm.Network([*copy.deepcopy(logits), gm.Activation("softmax")], dtype="float64")
    histories = [net.fit(x, target, loss=loss, shuffle=False) for net in (logits, softmax)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-12)
    for p, q in zip(logits.parameters(), softmax.parameters(), strict=True):
        np.testing.assert_array_equal(p, q)
    np.testing.assert_allclose(logits.predict_proba(x), softmax.predict_proba(x), rtol=1e-12)


def test_each_learns() -> None:
    x, y = classification(300)
    for loss, target in [
        ("hinge", y),
        ("kl_divergence", np.eye(3)[y]),
        (gm.losses.CrossEntropy(label_smoothing=0.1), y),
    ]:
        net = classifier()
        net.fit(x, target, loss=loss, optimizer=gm.Adam(0.02), epochs=60, metrics=["accuracy"])
        assert net.history is not None
        assert net.history["accuracy"][-1] > 0.9, loss
        assert (net.predict(x).argmax(axis=1) == y).mean() > 0.9, loss
    counts = np.random.default_rng(0).poisson(np.exp(x[:, 0]))
    net = gm.Network([gm.Dense(2, 1)], rng=0)
    net.fit(x, counts, loss="poisson", optimizer=gm.Adam(0.05), epochs=60)
    np.testing.assert_allclose(net[0].weight, [[1, 0]], atol=0.15)


def test_repr_equality_files(tmp_path: Path) -> None:
    for loss in (
        gm.losses.Huber(0.25),
        gm.losses.Hinge(),
        gm.losses.KLDivergence(from_logits=True),
        gm.losses.Poisson(log_input=False, eps=1e-4),
        gm.losses.CrossEntropy(label_smoothing=0.125),
    ):
        assert eval(repr(loss), vars(gm.losses)) == loss
        assert pickle.loads(pickle.dumps(loss)) == loss == copy.deepcopy(loss)
        net = classifier()
        net.loss = loss
        net.save(tmp_path / "net.safetensors")
        assert gm.load(tmp_path / "net.safetensors").loss == loss
    assert gm.losses.Huber(1) != gm.losses.Huber(2)
    assert hash(gm.losses.Huber(1)) == hash(gm.losses.Huber())


def test_hinge_takes_0_and_1_for_its_signs() -> None:
    z, t = P[:, :1], SIGNS[:, 0]
    want = gm.losses.hinge(z, t)
    for target in (t > 0, (t > 0).astype(int), (t > 0)[:, None] * 1.0):
        got = gm.losses.hinge(z, target)
        assert got[0] == want[0]
        np.testing.assert_array_equal(got[1], want[1])


def test_predictions_of_nothing_that_are_infinite_stay_without_gradient() -> None:
    """0 log 0 = 0 in divergences, and the last class's logit may be minus infinity in none of them."""
    loss, grad = gm.losses.kl_divergence(np.array([[30.0, -30, 0]]), np.array([[1.0, 0, 0]]))
    assert 0 <= loss < 1e-12
    assert abs(grad).max() < 1e-12


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: gm.losses.Huber(0), ValueError, "Huber: delta is 0; it must be positive"),
        (lambda: gm.losses.Huber(float("nan")), ValueError, "Huber: delta"),
        (lambda: gm.losses.Huber("1"), TypeError, "Huber: delta must be a number"),
        (lambda: gm.losses.Poisson(eps=-1), ValueError, "Poisson: eps"),
        (lambda: gm.losses.Poisson(1), TypeError, "Poisson: log_input must be True or False"),
        (lambda: gm.losses.CrossEntropy(label_smoothing=1), ValueError, "CrossEntropy: label_smoothing is 1"),
        (lambda: gm.losses.CrossEntropy(label_smoothing=-0.1), ValueError, "label_smoothing"),
        (lambda: gm.losses.KLDivergence("yes"), TypeError, "KLDivergence: from_logits must be"),
        (lambda: gm.losses.poisson(P, -COUNTS - 1), ValueError, r"poisson: target holds -\d+ at \(0, 0\)"),
        (lambda: gm.losses.hinge(P, SHARES), ValueError, "hinge: target holds .*; targets are -1 and 1, or"),
        (lambda: gm.losses.hinge(P, SIGNS * (T > 0)), ValueError, "hinge: target holds"),
        (lambda: gm.losses.hinge(P, LABELS + 1), ValueError, "hinge: target holds label 9"),
        (lambda: gm.losses.hinge(P, LABELS * 1.0), gm.DTypeError, "hinge: target has dtype float64; labels"),
        (
            lambda: gm.losses.kl_divergence(P, LABELS),
            gm.ShapeError,
            r"only cross_entropy and hinge take labels",
        ),
        (lambda: gm.losses.kl_divergence(P, 2 * SHARES), ValueError, r"targets lie in \[0, 1\]"),
        (lambda: gm.losses.kl_divergence(P[:, :1], SHARES[:, :1]), gm.ShapeError, "has no classes"),
        (lambda: gm.losses.Custom(len, 3), TypeError, "Custom: gradient must be a function"),
        (lambda: classifier().fit(*classification(), loss="custom"), ValueError, "unknown loss 'custom'"),
        (lambda: gm.ops.loss(P, T, "hubert"), ValueError, "unknown loss 'hubert'; known: mse,"),
    ],
)
def test_bad_arguments(call: Callable[[], object], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


# -- of the user's own ---------------------------------------------------------------------------------------


def log_cosh(p: Array, t: Array) -> Array:
    return np.log(np.cosh(p - t)).mean(axis=1)


def log_cosh_gradient(p: Array, t: Array) -> Array:
    return np.tanh(p - t) / p.shape[1]


def squares(p: Array, t: Array) -> Array:
    return ((p - t) ** 2).mean(axis=1)


def squares_gradient(p: Array, t: Array) -> Array:
    return 2 * (p - t) / p.shape[1]


SQUARES = gm.losses.Custom(squares, squares_gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weight", [None, np.arange(96) % 4])
def test_a_custom_loss_trains_as_a_built_in_one(isa: str, dtype: str, weight: Any) -> None:
    x, y = regression()
    net = gm.Network.mlp([5, 8, 2], rng=1, dtype=dtype)
    other = copy.deepcopy(net)
    options = {"epochs": 3, "validation_split": 0.25, "metrics": ["mse", "r2"], "sample_weight": weight}
    mine = net.fit(x, y, loss=SQUARES, **options)
    built_in = other.fit(x, y, loss="mse", **options)
    eps = float(np.finfo(dtype).eps)
    for key in mine:
        np.testing.assert_allclose(mine[key], built_in[key], rtol=1000 * eps)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=3000 * eps)  # Adam's step, 12 of them, at sizes of one
    value, grad = SQUARES(net.predict(x), y.astype(dtype))
    want, want_grad = gm.losses.mse(net.predict(x), y)
    assert value == pytest.approx(want, rel=100 * eps)
    np.testing.assert_allclose(grad, want_grad, rtol=100 * eps, atol=eps)
    assert grad.dtype == dtype


def test_a_custom_loss_of_labels() -> None:
    def value(z: Array, label: Array) -> Array:
        assert label.dtype == np.int64 and label.shape == (len(z),)
        return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), label]

    def gradient(z: Array, label: Array) -> Array:
        return reference.softmax(z) - reference.one_hot(label, z.shape[1])

    x, y = classification()
    net, other = classifier(dtype="float64"), classifier(dtype="float64")
    loss = gm.losses.Custom(value, gradient)
    net.fit(x, y, loss=loss, epochs=2, class_weight={1: 2.0}, metrics=["accuracy"])
    other.fit(x, y, loss="cross_entropy", epochs=2, class_weight={1: 2.0}, metrics=["accuracy"])
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="custom: y holds label 3"):
        net.fit(x, y + 1, loss=loss)


def test_a_custom_loss_against_central_differences() -> None:
    loss, p = gm.losses.Custom(log_cosh, log_cosh_gradient), P.copy()
    _, grad = loss(p, T)
    for i, j in ((0, 0), (5, 3), (36, 8)):
        step = np.zeros_like(p)
        step[i, j] = 1e-6
        numeric = (loss(p + step, T)[0] - loss(p - step, T)[0]) / 2e-6
        assert grad[i, j] == pytest.approx(numeric, abs=1e-8)


def test_what_a_custom_loss_is_given_is_its_own() -> None:
    kept: list[Array] = []

    def value(p: Array, t: Array) -> Array:
        kept.append(p)
        losses = squares(p, t)
        p[...] = t[...] = 0
        return losses

    def gradient(p: Array, t: Array) -> Array:
        grad = squares_gradient(p, t)
        p[...] = t[...] = 0
        return grad

    x, y = regression()
    net, other = regressor(), regressor()
    before = x.copy(), y.copy()
    net.fit(x, y, loss=gm.losses.Custom(value, gradient), shuffle=False, batch_size=None, epochs=2)
    other.fit(x, y, loss=SQUARES, shuffle=False, batch_size=None, epochs=2)
    assert weights(net) == weights(other)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert not kept[0].any()
    p = y.copy()
    gm.losses.Custom(value, gradient)(p, y)
    np.testing.assert_array_equal(p, before[1])


@pytest.mark.parametrize(
    ("value", "gradient", "kind", "match"),
    [
        (lambda p, t: 0.0, squares_gradient, gm.ShapeError, r"value returned shape \(\), not \(\d+"),
        (lambda p, t: p, squares_gradient, gm.ShapeError, r"value returned shape \(\d+, 2\)"),
        (lambda p, t: squares(p, t) + 1j, squares_gradient, gm.DTypeError, "value returned complex"),
        (lambda p, t: None, squares_gradient, gm.DTypeError, "value returned"),
        (
            squares,
            lambda p, t: p[:, :1],
            gm.ShapeError,
            r"gradient returned shape \(\d+, 1\), not \(\d+, 2\)",
        ),
        (squares, lambda p, t: ["a"], gm.DTypeError, "gradient returned"),
    ],
)
def test_what_a_custom_loss_returns_is_checked(
    value: Any, gradient: Any, kind: type[Exception], match: str
) -> None:
    x, y = regression()
    net, loss = regressor(), gm.losses.Custom(value, gradient)
    before = weights(net)
    with pytest.raises(kind, match=match):
        net.fit(x, y, loss=loss)
    assert weights(net) == before
    with pytest.raises(kind, match=match):
        loss(y, y)


def test_an_error_in_a_custom_loss_leaves_the_last_complete_step() -> None:
    calls = []

    def gradient(p: Array, t: Array) -> Array:
        calls.append(len(p))
        if len(calls) == 3:
            raise LookupError("in the gradient")
        return squares_gradient(p, t)

    x, y = regression()
    net, other = regressor(), regressor()
    with pytest.raises(LookupError, match="in the gradient"):
        net.fit(x, y, loss=gm.losses.Custom(squares, gradient), batch_size=32, shuffle=False, epochs=2)
    other.fit(x[:64], y[:64], loss=SQUARES, batch_size=32, shuffle=False)
    assert weights(net) == weights(other)
    with pytest.raises(gm.DivergenceError, match="loss is not finite in epoch 1, batch 1"):
        net.fit(x, y, loss=gm.losses.Custom(lambda p, t: squares(p, t) * np.nan, squares_gradient))
    assert weights(net) == weights(other)


def test_files_name_the_functions_of_a_custom_loss(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = regressor()
    net.loss = SQUARES
    net.save(path)
    custom: dict[str, Any] = {"squares": squares, "squares_gradient": squares_gradient}
    assert gm.load(path, custom=custom).loss == SQUARES
    with pytest.raises(ValueError, match=r"needs 'squares', which is your own: load\(custom="):
        gm.load(path)
    net.loss = gm.losses.Custom(lambda p, t: squares(p, t), squares_gradient)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"save: <function .*lambda.* has no name .*load\(custom="):
        net.save(path)
    assert path.read_bytes() == before


def test_a_fit_with_a_custom_loss_resumes(tmp_path: Path) -> None:
    x, y = regression()
    point = tmp_path / "fit.checkpoint"
    net, resumed, whole = regressor(), regressor(), regressor()
    net.fit(x, y, loss=SQUARES, epochs=2, callbacks=[gm.callbacks.Checkpoint(point)])
    resumed.fit(x, y, loss=gm.losses.Custom(squares, squares_gradient), epochs=4, resume=point)
    whole.fit(x, y, loss=SQUARES, epochs=4)
    assert weights(resumed) == weights(whole)


def test_programs_follow_the_functions_and_parameters() -> None:
    """Another loss of the same kind is another program."""
    x, y = regression()
    net = regressor()
    net.fit(x, y, loss=SQUARES)
    tenfold = gm.losses.Custom(lambda p, t: 10 * squares(p, t), squares_gradient)
    assert net.evaluate(x, y, loss=tenfold)["loss"] == pytest.approx(10 * net.evaluate(x, y)["loss"])
    small, large = (net.evaluate(x, y, loss=gm.losses.Huber(d))["loss"] for d in (0.01, 100))
    assert large == pytest.approx(net.evaluate(x, y, loss="half_mse")["loss"], rel=1e-5)
    assert small < large
