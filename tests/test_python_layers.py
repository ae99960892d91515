"""Layers that a user writes in Python: what they may keep and return, and what stops at their errors."""

import threading
from typing import Any

import numpy as np
import pytest
from helpers import Array, Doubling, classification, classifier, weights

import gemmule as gm


def test_what_a_python_layer_keeps_stays_valid() -> None:
    class Keeper(gm.Layer):
        def forward(self, x: Array) -> Array:
            self.x = x
            return x

        def backward(self, dy: Array) -> Array:
            self.dy = dy
            return dy

    keeper = Keeper()
    net = gm.Network([gm.Dense(2, 3), keeper, gm.Dense(3, 1)], rng=0)
    x = classification()[0]
    net.forward(x)
    net.backward(np.ones((len(x), 1), np.float32))
    kept = keeper.x.copy()
    del net
    np.testing.assert_allclose(kept, keeper.x)
    assert keeper.dy.shape == kept.shape


def test_an_error_in_a_python_layer_leaves_the_last_complete_step() -> None:
    class Broken(Doubling):
        calls = 0

        def backward(self, dy: Array) -> Array:
            self.calls += 1
            if self.calls == 3:
                raise LookupError("in backward")
            return super().backward(dy)

    x, y = classification()
    net = gm.Network([gm.Dense(2, 3), Broken()], rng=0)
    twin = gm.Network([gm.Dense(2, 3), Doubling()], rng=0)
    with pytest.raises(LookupError, match="in backward"):
        net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=16, shuffle=False)
    twin.fit(x[:32], y[:32], loss="cross_entropy", epochs=1, batch_size=16, shuffle=False)
    assert weights(net) == weights(twin)


@pytest.mark.parametrize("wrong", [lambda x: x[:, :-1], lambda x: x[:-1], lambda x: x + 1j, lambda x: None])
def test_a_python_layer_must_return_the_right_array(wrong: Any) -> None:
    class Wrong(Doubling):
        def forward(self, x: Array) -> Array:
            return wrong(x)

    with pytest.raises((ValueError, TypeError), match=r"Wrong|forward"):
        gm.Network([gm.Dense(2, 3), Wrong()], rng=0).predict(classification()[0])


def test_predict_works_inside_a_python_layer() -> None:
    x = classification()[0]
    helper = classifier()
    want = helper.predict(x)
    inside = []

    class Asks(Doubling):
        def forward(self, x: Array) -> Array:
            inside.append((helper.predict(classification()[0]), net[:1].predict(classification()[0])))
            return x

    net = gm.Network([gm.Dense(2, 3), Asks()], rng=0)
    got = net.predict(x)
    for other, own in inside:
        np.testing.assert_array_equal(other, want)
        np.testing.assert_array_equal(own, got)
    assert inside


def test_a_python_layer_has_one_place_in_a_network() -> None:
    layer = Doubling()
    net = gm.Network([gm.Dense(2, 3), layer, layer], rng=0)
    with pytest.raises(ValueError, match=r"Doubling.* twice"):
        net.predict(classification()[0])


def test_a_layer_that_calls_its_own_network_is_refused_not_waited_for() -> None:
    class Again(Doubling):
        def forward(self, x: Array) -> Array:
            return net.forward(x)

    net = gm.Network([Again(), gm.Dense(2, 2)], rng=0)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            net.forward(classification()[0])
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(30)
    assert "inside the same network" in str(raised[0])


def test_a_python_layer_may_call_an_attribute_layers() -> None:
    layer = Doubling()
    layer.layers = 3
    assert gm.Network([layer, gm.Dense(2, 3)]).predict(classification()[0]).shape[1] == 3


@pytest.mark.parametrize("shape", [3, [3], None, (-1,), (), (2.0,)])
def test_output_shape_must_be_a_tuple_of_sizes(shape: Any) -> None:
    class Wrong(Doubling):
        def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return shape

    with pytest.raises((TypeError, ValueError), match="Wrong: output_shape"):
        gm.Network([gm.Dense(2, 3), Wrong()])
