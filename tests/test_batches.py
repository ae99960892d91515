"""gm.batches: the batches of a hand-written loop."""

from typing import Any

import numpy as np
import pytest
from helpers import Array
from streams import Store

import gemmule as gm
from gemmule import _sources

X = np.arange(60, dtype=np.float32).reshape(30, 2)
Y = np.arange(30)


def kinds() -> list[tuple[Any, Any]]:
    return [(X, Y), (Store(X), Store(Y)), (Store(X), Y), (X.tolist(), Y.tolist())]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sources, "BLOCK", 12 * 8)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("size", [1, 7, 8, 30, 99])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_in_batches_of_the_size(kind: int, size: int, shuffle: bool) -> None:
    x, y = kinds()[kind]
    batches = gm.batches(x, y, size, shuffle=shuffle, rng=0)
    epochs = [list(batches) for _ in range(2)]
    for found in epochs:
        assert len(found) == len(batches)
        assert [len(b) for b, _ in found] == [min(size, 30 - i) for i in range(0, 30, size)]
        rows = np.concatenate([yb for _, yb in found])
        np.testing.assert_array_equal(np.sort(rows), Y)
        np.testing.assert_array_equal(np.concatenate([xb for xb, _ in found]), X[rows])
        assert np.array_equal(rows, Y) is not shuffle
        assert all(type(part) is np.ndarray for batch in found for part in batch)
    assert same(*epochs) is not shuffle


def same(a: list[Any], b: list[Any]) -> bool:
    return all(np.array_equal(x, z) for (x, _), (z, _) in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", range(3))
def test_seeds(kind: int) -> None:
    x, y = kinds()[kind]
    assert same(list(gm.batches(x, y, 7, rng=5)), list(gm.batches(x, y, 7, rng=5)))
    assert not same(list(gm.batches(x, y, 7, rng=5)), list(gm.batches(x, y, 7, rng=6)))
    generator = np.random.default_rng(5)
    assert same(list(gm.batches(x, y, 7, rng=generator)), list(gm.batches(x, y, 7, rng=5)))


@pytest.mark.parametrize("kind", range(3))
def test_a_last_batch_that_is_smaller_can_be_left_out(kind: int) -> None:
    x, y = kinds()[kind]
    batches = gm.batches(x, y, 7, drop_last=True)
    assert [len(b) for b, _ in batches] == [7] * 4 and len(batches) == 4
    assert len(gm.batches(x, y, 10, drop_last=True)) == 3
    assert list(gm.batches(x, y, 31, drop_last=True)) == []


def test_without_targets() -> None:
    found: list[Array] = list(gm.batches(X, batch_size=7, shuffle=False))
    np.testing.assert_array_equal(np.concatenate(found), X)
    np.testing.assert_array_equal(np.concatenate(list(gm.batches(Store(X), batch_size=7, shuffle=False))), X)


def test_a_loop_by_hand_does_what_fit_does() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 5)), rng.standard_normal((96, 2))
    by_hand, fitted = (
        gm.Network.mlp([5, 16, 2], activation="tanh", rng=1, dtype="float64") for _ in range(2)
    )
    optimizer = gm.SGD(0.1)
    for xb, yb in gm.batches(x, y, 20, shuffle=False):
        _, dz = gm.losses.mse(by_hand.forward(xb, training=True), yb)
        by_hand.zero_grad()
        by_hand.backward(dz)
        optimizer.step(by_hand)
    fitted.fit(x, y, loss="mse", optimizer=gm.SGD(0.1), batch_size=20, shuffle=False)
    for (_, p), (_, q) in zip(by_hand.named_parameters(), fitted.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "match"),
    [
        ((X, Y[:-1]), {}, gm.ShapeError, "X has 30 samples, y 29"),
        ((X[:0], Y[:0]), {}, gm.ShapeError, "no samples"),
        ((X, Y, 0), {}, ValueError, "batch_size"),
        ((X, Y, 2.5), {}, TypeError, "batch_size"),
        ((X, Y), {"shuffle": "blocks"}, TypeError, "shuffle"),
        ((X, Y), {"drop_last": 1}, TypeError, "drop_last"),
        ((X, [object()] * 30), {}, gm.DTypeError, "y"),
        (({"a": X[:, 0]}, Y), {}, TypeError, "table"),
    ],
)
def test_bad_arguments(arguments: Any, options: dict[str, Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        gm.batches(*arguments, **options)
