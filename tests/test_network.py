"""What users may rely on: parameters as views, sharing, state, copies, training as documented."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from helpers import Array, Doubling, classification, classifier, weights

import gemmule as gm

# -- parameters ----------------------------------------------------------------------------------------------


def test_writing_into_a_parameter_writes_the_network() -> None:
    net = gm.Network([gm.Dense(2, 3)], rng=0)
    x = np.ones((1, 2), np.float32)
    net.predict(x)
    weight = net[0].weight
    weight[...] = [[1, 2], [3, 4], [5, 6]]
    np.testing.assert_array_equal(net.predict(x), [[3, 7, 11]])
    weight *= 2
    weight[0, 0] = 0
    np.testing.assert_array_equal(net.predict(x), [[4, 14, 22]])
    net[0].bias += 1
    np.testing.assert_array_equal(net.predict(x), [[5, 15, 23]])


def test_assignment_copies_into_place() -> None:
    net = gm.Network([gm.Dense(2, 3)], rng=0)
    held, value = net[0].weight, np.arange(6.0).reshape(3, 2)
    net[0].weight = value
    np.testing.assert_array_equal(held, value)
    value[...] = -1
    assert held.min() == 0
    assert held.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 1), (6,), ()])
def test_assignment_of_a_wrong_shape_leaves_the_value(shape: tuple[int, ...]) -> None:
    net = gm.Network([gm.Dense(2, 3)], rng=0)
    before = weights(net)
    with pytest.raises(gm.ShapeError, match=r"weight.*\(3, 2\)"):
        net[0].weight = np.ones(shape)
    assert weights(net) == before


def test_what_is_computed_from_a_parameter_is_plain() -> None:
    weight = gm.Network([gm.Dense(2, 3)], rng=0)[0].weight
    assert isinstance(weight, np.ndarray)
    for derived in (weight + 1, weight @ weight.T, weight[0], weight.copy(), abs(weight), weight.T):
        assert type(derived) is np.ndarray
    assert np.ndim(weight.sum()) == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, np.copy, lambda p: p.view(), lambda p: p.imag])
def test_copies_of_a_parameter_are_plain(copied: Callable[[gm.Parameter], Array]) -> None:
    assert type(copied(gm.Network([gm.Dense(2, 3)])[0].weight)) is np.ndarray


def test_memory_with_a_live_view_stays() -> None:
    net = classifier()
    weight = net[0].weight
    address = weight.ctypes.data
    x, y = classification()
    net.fit(x, y, loss="cross_entropy", epochs=1)
    net.load_state_dict(classifier(rng=1).state_dict())
    assert net[0].weight.ctypes.data == address
    del net
    weight += 1  # outlives its network
    assert np.isfinite(weight).all()


def test_slices_and_containing_networks_share_parameters() -> None:
    net = gm.Network([gm.Dense(2, 4, "relu"), gm.Dense(4, 4, "relu"), gm.Dense(4, 1)], rng=0)
    head = net[:2]
    assert isinstance(head, gm.Network)
    assert (len(net), len(head)) == (3, 2)
    x = classification()[0]
    outer = gm.Network([head, gm.Dense(4, 3)], rng=1)
    head[0].weight[...] = 0.5
    for other in (net, outer[0]):
        np.testing.assert_array_equal(other[0].weight, head[0].weight)
    np.testing.assert_array_equal(net[2:].predict(head.predict(x)), net.predict(x))
    before = net[2].weight.copy()
    outer.fit(x, classification()[1], loss="cross_entropy", epochs=2)
    np.testing.assert_array_equal(net[0].weight, outer[0][0].weight)
    np.testing.assert_array_equal(net[2].weight, before)
    assert not np.array_equal(net[0].weight, np.full((4, 2), 0.5))


def test_a_layer_used_twice_has_its_parameters_once() -> None:
    shared = gm.Dense(3, 3, "tanh")
    net = gm.Network([gm.Dense(2, 3), shared, shared], rng=0)
    assert len(list(net.named_parameters())) == 4
    shared.weight[...] = np.eye(3)
    x = classification()[0]
    hidden = x @ net[0].weight.T
    np.testing.assert_allclose(net.predict(x), np.tanh(np.tanh(hidden)), rtol=1e-5, atol=1e-6)


def test_unknown_input_width_is_taken_from_the_layer_before_or_from_the_classification() -> None:
    net = gm.Network([gm.Dense(None, 5, "relu"), gm.Dense(None, 1)], rng=0)
    x = np.ones((3, 7), np.float32)
    assert net.predict(x).shape == (3, 1)
    assert net[0].weight.shape == (5, 7)
    assert net[1].weight.shape == (1, 5)


# -- inputs and outputs --------------------------------------------------------------------------------------


def test_a_copy_of_a_layer_without_memory_gets_its_own() -> None:
    layer = gm.Dense(None, 2)
    net = gm.Network([layer, copy.copy(layer)], input_shape=2, rng=0)
    assert not np.array_equal(net[0].weight, net[1].weight)


def test_threads_that_meet_an_unbuilt_network_build_it_once() -> None:
    x = classification()[0]
    for _ in range(20):
        net = gm.Network([gm.Dense(None, 64, "relu"), gm.Dense(None, 3)], rng=0)
        with ThreadPoolExecutor(8) as pool:
            outputs = list(pool.map(net.predict, [x] * 8))
        assert all(np.array_equal(output, outputs[0]) for output in outputs)


def test_one_sample_in_one_out() -> None:
    net = classifier()
    x = classification()[0]
    batch = net.predict(x[:1])
    for one in (net.predict(x[0]), net.forward(x[0])):
        assert one.shape == (3,)
        np.testing.assert_array_equal(one, batch[0])
    dx = net.backward(np.ones(3, np.float32))
    assert dx.shape == (2,)


def test_predict_is_forward_and_leaves_no_mark(isa: str) -> None:
    net = gm.Network([gm.Dense(2, 40, "gelu"), gm.Dropout(0.5), gm.Dense(40, 3)], rng=0)
    x = classification(200)[0]
    np.testing.assert_array_equal(net.predict(x), net.forward(x))
    np.testing.assert_array_equal(net.predict(x), net.predict(x))
    assert not np.array_equal(net.forward(x, training=True), net.forward(x))
    with pytest.raises(gm.ShapeError, match=r"\(0, 2\)"):
        net.predict(x[:0])


def test_an_array_of_the_right_type_is_read_where_it_lies() -> None:
    net = classifier()
    x = classification()[0]
    before = x.copy()
    net.predict(x)
    net.forward(x)
    np.testing.assert_array_equal(x, before)


def test_predict_proba_applies_the_link_of_the_loss() -> None:
    x, y = classification()
    net = classifier()
    net.fit(x, y, loss="cross_entropy", epochs=1)
    want = reference.softmax(net.predict(x).astype(float))
    # Each probability is a quotient of two sums of exponentials: a few eps.
    np.testing.assert_allclose(net.predict_proba(x), want, rtol=32 * np.finfo(np.float32).eps)
    binary = gm.Network.mlp([2, 8, 1], rng=0)
    binary.fit(x, (y > 0).astype(float), loss="bce_with_logits", epochs=1)
    want = reference.logistic(binary.predict(x).astype(float))
    np.testing.assert_allclose(binary.predict_proba(x), want, rtol=32 * np.finfo(np.float32).eps)


def test_targets_of_one_output_may_be_flat() -> None:
    x = classification()[0]
    y = x[:, 0] * 2
    results = []
    for target in (y, y[:, None]):
        net = gm.Network.mlp([2, 4, 1], rng=0)
        net.fit(x, target, loss="mse", epochs=2)
        results.append(weights(net))
    assert results[0] == results[1]


# -- looking inside ------------------------------------------------------------------------------------------


def test_trace_equals_the_network_by_hand(isa: str) -> None:
    net = gm.Network([gm.Dense(2, 5, "relu"), gm.Dense(5, 3, "tanh")], dtype="float64", rng=0)
    x = classification()[0][:8].astype(float)
    z0 = reference.dense(x, net[0].weight, net[0].bias)
    h0 = np.maximum(z0, 0)
    z1 = reference.dense(h0, net[1].weight, net[1].bias)
    trace = net.trace(x)
    wanted = {"0.z": z0, "0.h": h0, "1.z": z1, "1.h": np.tanh(z1)}
    assert set(wanted) <= set(trace)
    for name, value in wanted.items():
        np.testing.assert_allclose(trace[name], value, rtol=1e-13, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(("sizes", "count"), [([784, 256, 128, 10], "235,146"), ([2, 16, 16, 1], "337")])
def test_summary_lists_layers_and_parameters(sizes: list[int], count: str) -> None:
    net = gm.Network.mlp(sizes, activation="relu")
    for text in (str(net.summary()), net._repr_html_()):
        assert count in text
        assert text.count("Dense") >= len(sizes) - 1
        for size in sizes[1:]:
            assert f"{size}" in text
    assert repr(net).count("Dense") == len(sizes) - 1
    assert net._repr_html_().lstrip().startswith("<")


def test_named_parameters_are_named_as_in_pytorch() -> None:
    inner = gm.Network([gm.Dense(4, 4)])
    net = gm.Network([gm.Dense(3, 4), inner, gm.Dense(4, 2)])
    shapes = {name: p.shape for name, p in net.named_parameters()}
    assert shapes == {
        "0.weight": (4, 3),
        "0.bias": (4,),
        "1.0.weight": (4, 4),
        "1.0.bias": (4,),
        "2.weight": (2, 4),
        "2.bias": (2,),
    }


@pytest.mark.parametrize("training", [True, False])
def test_plan_names_ops_fusions_and_the_arena(training: bool, capsys: pytest.CaptureFixture[str]) -> None:
    gm.Network.mlp([784, 256, 128, 10], activation="relu").plan(64, training=training)
    text = capsys.readouterr().out.lower()
    for word in ("dense", "relu", "fused", "arena"):
        assert word in text


# -- copies and files ----------------------------------------------------------------------------------------


def test_state_dict_round_trip() -> None:
    net, other = classifier(rng=0), classifier(rng=1)
    state = net.state_dict()
    other.load_state_dict(state)
    assert weights(other) == weights(net)
    state["0.weight"][...] = 0
    assert weights(other) == weights(net)  # plain copies, not views


def test_load_state_dict_checks_all_before_it_writes() -> None:
    net = classifier()
    before, state = weights(net), classifier(rng=1).state_dict()
    for change in ({"1.bias": np.ones(4)}, {"1.bias": None}, {"2.bias": np.ones(3)}):
        broken = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises((ValueError, KeyError), match=r"bias"):
            net.load_state_dict(broken)
        assert weights(net) == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_whole_and_independent(duplicate: Any) -> None:
    x, y = classification()
    net = gm.Network([gm.Dense(2, 9, "gelu"), gm.Dropout(0.2), gm.Dense(9, 3)], rng=0)
    net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=2)
    twin = duplicate(net)
    np.testing.assert_array_equal(twin.predict(x), net.predict(x))
    for n in (net, twin):  # from the same place of the random stream
        n.fit(x, y, loss="cross_entropy", optimizer=gm.SGD(0.1), epochs=2)
    assert weights(net) == weights(twin)
    twin[0].weight[...] = 0
    assert net[0].weight.any()


def predict_elsewhere(net: gm.Network, x: Array) -> Array:
    return net.predict(x)


def test_a_network_can_be_sent_to_a_spawned_process() -> None:
    net, x = classifier(), classification()[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply_async(predict_elsewhere, (net, x)).get(timeout=60)
    np.testing.assert_array_equal(got, net.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_and_load(tmp_path: Path, dtype: str) -> None:
    x, y = classification()
    inner = gm.Network([gm.Dense(6, 5, "leaky_relu", slope=0.2), gm.Dropout(0.1)], dtype=dtype)
    net = gm.Network(
        [gm.Dense(2, 6, "elu"), inner, gm.Dense(5, 5, bias=False), gm.Activation("silu"), gm.Dense(5, 3)],
        dtype=dtype,
        rng=0,
    )
    net.fit(x, y, loss="cross_entropy", epochs=2)
    net.save(tmp_path / "net.safetensors")
    back = gm.load(tmp_path / "net.safetensors")
    assert weights(back) == weights(net)
    assert repr(back) == repr(net)
    assert back[0].weight.dtype == dtype
    np.testing.assert_array_equal(back.predict(x), net.predict(x))
    np.testing.assert_array_equal(back.predict_proba(x), net.predict_proba(x))
    assert back.evaluate(x, y) == net.evaluate(x, y)


def test_lambdas_and_user_classes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    pair = gm.Activation((lambda z: z * z, lambda z: 2 * z))
    with pytest.raises(TypeError, match=r"custom="):
        gm.Network([gm.Dense(2, 3), pair]).save(path)
    assert not path.exists()


def test_a_user_layer_comes_back_through_custom(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = gm.Network([gm.Dense(2, 3), Doubling()], rng=0)
    net.save(path)
    with pytest.raises(ValueError, match=r"Doubling.*custom="):
        gm.load(path)
    x = classification()[0]
    back = gm.load(path, custom={"Doubling": Doubling})
    np.testing.assert_array_equal(back.predict(x), net.predict(x))


def test_cross_entropy_takes_one_axis_of_classes() -> None:
    net = gm.Network([gm.Activation("softmax")], input_shape=(3, 4))
    targets = np.zeros((5, 3, 4), np.float32)
    with pytest.raises(gm.ShapeError, match=r"cross_entropy\w*: output \(3, 4\)"):
        net.evaluate(np.zeros((5, 3, 4), np.float32), targets, loss="cross_entropy")
