"""fit, evaluate and predict on data that come in blocks: what can be sliced, and iterables of batches. They
must give what the same samples in the same order give as arrays."""

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, KilledError, gradients, killed_behind, weights
from streams import CLASSES, FEATURES, SAMPLES, Store, data, fit, in_batches, make_net, threads_left

import gemmule as gm
from gemmule import _sources

METRICS = ["accuracy", "f1", "top_2"]  # one is summed by the compiled loop, two need all outputs


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Some 150 samples each, not a multiple of a batch; and no thread may be left."""
    monkeypatch.setattr(_sources, "BLOCK", 150 * FEATURES * 4)
    yield
    assert threads_left() == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "k"), [(32, 1), (7, 1), (16, 3), (500, 1), (200, 2)])
def test_a_store_in_its_order_gives_the_bits_of_an_array(dtype: str, batch: int, k: int) -> None:
    x, y = data(dtype)
    options: dict[str, Any] = {"batch_size": batch, "accumulate": k, "shuffle": False, "metrics": METRICS}
    arrays, store = make_net(dtype), make_net(dtype)
    wanted = fit(arrays, x, y, validation_data=(x[:99], y[:99]), **options)
    found = fit(store, Store(x), Store(y), validation_data=(Store(x[:99]), Store(y[:99])), **options)
    assert weights(store) == weights(arrays)
    assert gradients(store) == gradients(arrays)
    assert store._step == arrays._step
    for name in wanted:
        # Validation sums blocks of float64 means; the rest is the same sum.
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12 if "val" in name else 0)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [32, 7])
def test_batches_give_the_bits_of_an_array(size: int, k: int) -> None:
    x, y = data()
    arrays, batches = make_net(), make_net()
    wanted = fit(arrays, x, y, batch_size=size, accumulate=k, shuffle=False, metrics=METRICS)
    found = fit(batches, in_batches(x, y, size), accumulate=k, metrics=METRICS)
    assert weights(batches) == weights(arrays)
    assert dict(found) == dict(wanted)


def test_every_batch_has_its_own_size() -> None:
    """Against updates on the batches as arrays of their own: the same float64 terms, perhaps in another
    order. 24 steps of errors of about 1e-16 stay far under 1e-10."""
    x, y = data("float64")
    cuts = [0, 100, 103, 150, 151, 250, 333, 400, 500]
    parts = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(cuts)]
    one, many = make_net("float64"), make_net("float64")
    history = fit(one, parts)  # a list of batches begins anew for each epoch
    optimizer, losses = gm.Adam(1e-2), []
    for _ in range(3):
        for xb, yb in parts:
            kept = fit(many, xb, yb, epochs=1, optimizer=optimizer, batch_size=None, shuffle=False)
            losses.append(kept["loss"][0] * len(xb))
    for (_, p), (_, q) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(history["loss"], np.reshape(losses, (3, -1)).sum(axis=1) / SAMPLES, rtol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_threads_do_not_change_a_bit(count: int) -> None:
    x, y = data()
    one, many = make_net(), make_net()
    gm.set_num_threads(1)
    fit(one, Store(x), Store(y), batch_size=16)
    gm.set_num_threads(count)
    fit(many, Store(x), Store(y), batch_size=16)
    gm.set_num_threads(None)
    assert weights(one) == weights(many)


# -- order ---------------------------------------------------------------------------------------------------


def orders(net: gm.Network, x: Any, y: Array, epochs: int = 2, **options: Any) -> list[Array]:
    """The order in which samples were trained on: their numbers are the targets, and come in a metric."""
    seen: list[Array] = []

    def spy(targets: Array, outputs: Array) -> float:
        seen.append(targets.ravel().copy())
        return 0.0

    net.fit(x, y, loss="mse", optimizer=gm.SGD(0.0), epochs=epochs, metrics=[spy], **options)
    return seen


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_an_epoch(shuffle: bool) -> None:
    x = np.zeros((SAMPLES, FEATURES), np.float32)
    number = np.arange(SAMPLES, dtype=np.float32)
    first, second = orders(
        gm.Network([gm.Dense(FEATURES, 1)], rng=0), Store(x), Store(number), shuffle=shuffle
    )
    np.testing.assert_array_equal(np.sort(first), number)
    np.testing.assert_array_equal(np.sort(second), number)
    assert np.array_equal(first, second) is not shuffle
    assert np.array_equal(first, number) is not shuffle


def test_blocks_hold_rows_of_many_places() -> None:
    """16 stretches of 8 rows to a block of 128, in another order each epoch, and rows shuffled within."""
    orders_of = [
        list(_sources.blocks_of(1000, 128, 8, lambda i, e=e: np.random.default_rng([e, i]))) for e in (0, 1)
    ]
    for blocks in orders_of:
        rows = np.concatenate([np.arange(a, b) for block in blocks for a, b in block.stretches])
        np.testing.assert_array_equal(np.sort(rows), np.arange(1000))
        for block in blocks:
            count = sum(b - a for a, b in block.stretches)
            assert count == (128 if block is not blocks[-1] else 1000 % 128)
            assert block.rows is not None
            np.testing.assert_array_equal(np.sort(block.rows), np.arange(count))
        places = [a for a, _ in blocks[0].stretches]
        assert max(places) - min(places) > 500
    assert orders_of[0][0].stretches != orders_of[1][0].stretches


def test_the_same_seed_gives_the_same_order_and_another_fit_another() -> None:
    x, y = data()
    nets = [make_net() for _ in range(3)]
    for net in nets:
        fit(net, Store(x), y, batch_size=16)
    assert weights(nets[0]) == weights(nets[1])
    fit(nets[0], Store(x), y, batch_size=16)
    fit(nets[1], x, y, batch_size=16, shuffle="blocks")  # an array may be taken in the same way
    assert weights(nets[0]) == weights(nets[1])
    fit(nets[2], x, y, batch_size=16)
    assert weights(nets[0]) != weights(nets[2])


# -- what can be sliced --------------------------------------------------------------------------------------


def mapped(path: Path, array: Array) -> Array:
    np.save(path, array)
    return np.load(path.with_suffix(".npy"), mmap_mode="r")


def peak_of(call: Any) -> int:
    """The most bytes that NumPy held at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
def test_a_mapped_file_is_never_in_memory_as_a_whole(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 MB as float32; read in place, or in blocks of 64 KB. int64 labels take 160 KB, the order as much."""
    monkeypatch.setattr(_sources, "BLOCK", 1 << 16)
    rng = np.random.default_rng(0)
    x = mapped(tmp_path / "x", rng.integers(0, 200, (20_000, 100)).astype(dtype))
    y = rng.integers(0, CLASSES, 20_000)
    net = gm.Network.mlp([100, CLASSES], rng=0)
    net.fit(np.array(x[:64]), y[:64], loss="cross_entropy", optimizer=gm.SGD(1e-6))

    def work() -> None:
        net.fit(x, y, optimizer=gm.SGD(1e-6), batch_size=64)
        net.fit(x[:, ::-1], y, optimizer=gm.SGD(1e-6), batch_size=64)
        net.evaluate(x[:, ::-1], y)
        net.predict(x[:, ::-1][:100])

    assert peak_of(work) < (3e6 if dtype != "uint8" else 6e6)  # evaluate converts 4 MB of bytes at a time
    np.testing.assert_allclose(net.predict(x[:9, ::-1]), net.predict(np.array(x[:9, ::-1])), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int16", ">f4"])
def test_other_types_are_converted_block_by_block(dtype: str) -> None:
    x, y = data()
    x = (40 * x + 100).astype(dtype)
    store, arrays = make_net(), make_net()
    options: dict[str, Any] = {"batch_size": 16, "shuffle": False, "optimizer": gm.SGD(1e-5)}
    scale = {"scale": 1 / 255} if dtype == "uint8" else {}
    fit(store, Store(x), y, **options, **scale)
    fit(arrays, x, y, **options, **scale)
    assert weights(store) == weights(arrays)
    np.testing.assert_array_equal(store.predict(Store(x)), arrays.predict(x))
    found = store.evaluate(Store(x), Store(y), metrics=METRICS)
    assert found == pytest.approx(arrays.evaluate(x, y, metrics=METRICS), rel=1e-12)


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    x, y = data()
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(10, FEATURES))
        file.create_dataset("y", data=y)
    with h5py.File(tmp_path / "data.h5") as file:
        check_dataset(file["x"], file["y"], x, y)


def test_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    x, y = data()
    zx = zarr.open(str(tmp_path / "x.zarr"), mode="w", shape=x.shape, chunks=(10, FEATURES), dtype=x.dtype)
    zy = zarr.open(str(tmp_path / "y.zarr"), mode="w", shape=y.shape, chunks=(50,), dtype=y.dtype)
    zx[:], zy[:] = x, y
    check_dataset(zx, zy, x, y)


def check_dataset(dx: Any, dy: Any, x: Array, y: Array) -> None:
    assert _sources.is_store(dx)
    store, arrays = make_net(), make_net()
    fit(store, dx, dy, shuffle=False)
    fit(arrays, x, y, shuffle=False)
    assert weights(store) == weights(arrays)
    fit(store, dx, dy)
    np.testing.assert_array_equal(store.predict(dx), store.predict(x))


def test_chunks_of_the_file_are_read_whole() -> None:
    class Chunked(Store):
        chunks = (60, FEATURES)

    x, y = data()
    store = Chunked(x)
    fit(make_net(), store, y, epochs=1, batch_size=16)
    begins = {begin for begin, end in store.read if end - begin == 60}
    assert begins and all(begin % 60 == 0 for begin in begins)


def test_small_mapped_files_are_arrays(tmp_path: Path) -> None:
    """What a block holds is converted as a whole, and shuffled so."""
    x, y = data()
    x, y = x[:100].astype(np.float64), y[:100]
    nets = [make_net() for _ in range(2)]
    for net, given in zip(nets, (mapped(tmp_path / "x", x), x), strict=True):
        fit(net, given, y, validation_split=0.2)
    assert weights(nets[0]) == weights(nets[1])


def test_lists_tensors_and_frames_are_arrays() -> None:
    assert not _sources.is_store([[1.0, 2.0]])
    assert not _sources.is_store(np.ones(3))
    assert not _sources.is_store("abc")
    torch = pytest.importorskip("torch")
    assert not _sources.is_store(torch.ones(3))


# -- iterables -----------------------------------------------------------------------------------------------


def test_a_function_is_told_the_epoch() -> None:
    x, y = data()
    told: list[int] = []

    def batches(epoch: int) -> Iterator[tuple[Array, Array]]:
        told.append(epoch)
        return in_batches(np.roll(x, epoch, axis=0), np.roll(y, epoch))()

    fit(make_net(), batches)
    assert told[:3] == [0, 1, 2]


def test_endless_batches() -> None:
    """steps_per_epoch cuts one pass into epochs; the last update of an epoch takes what is left."""
    x, y = data()

    def endless() -> Iterator[tuple[Array, Array]]:
        while True:
            yield from in_batches(x[:480], y[:480])()

    net, twin = make_net(), make_net()
    fit(net, endless, steps_per_epoch=5, epochs=6, accumulate=2)
    x2, y2 = np.concatenate([x[:480]] * 2), np.concatenate([y[:480]] * 2)
    optimizer = gm.Adam(1e-2)
    for begin in range(0, 960, 160):
        rows = slice(begin, begin + 160)
        twin.fit(x2[rows], y2[rows], loss="cross_entropy", optimizer=optimizer, accumulate=2, shuffle=False)
    assert weights(net) == weights(twin)
    fit(net, endless(), steps_per_epoch=5, epochs=2)  # one iterator will do


def test_batches_of_ours_and_of_a_data_loader() -> None:
    x, y = data()
    nets = [make_net() for _ in range(2)]
    for net in nets:
        fit(net, gm.batches(x, y, 32, rng=3), optimizer=gm.Adam(gm.schedules.Cosine(1e-2)))
    assert weights(nets[0]) == weights(nets[1])
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(tensors, batch_size=32)
    net, twin = make_net(), make_net()
    fit(net, loader, optimizer=gm.Adam(gm.schedules.Cosine(1e-2)))
    fit(twin, x, y, shuffle=False, optimizer=gm.Adam(gm.schedules.Cosine(1e-2)))
    assert weights(net) == weights(twin)
    found = net.evaluate(loader, metrics=METRICS)
    assert found == pytest.approx(net.evaluate(x, y, metrics=METRICS), rel=1e-12)


def test_validation_on_batches_and_early_stopping() -> None:
    x, y = data()
    stopping = gm.callbacks.EarlyStopping(patience=1)
    net = make_net()
    history = fit(
        net, in_batches(x, y), epochs=50, validation_data=in_batches(x[:70], y[:70]),
        callbacks=[stopping], metrics=["accuracy"], progress=True,
    )  # fmt: skip
    assert history.epochs < 50
    assert stopping.best == pytest.approx(net.evaluate(x[:70], y[:70])["loss"], rel=1e-12)


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "writes"),
    [(kind, n) for kind in ("store", "batches", "sizes") for n in (1, 2, 3, 4, 6, 9)]
    + [("endless", n) for n in (1, 2)],
)
def test_resumed_is_bitwise_uninterrupted(kind: str, writes: int, tmp_path: Path) -> None:
    x, y = data()
    given: dict[str, dict[str, Any]] = {
        "store": {"x": Store(x), "y": Store(y), "batch_size": 16, "accumulate": 2},
        "batches": {"x": in_batches(x, y, 16), "accumulate": 2},
        "endless": {"x": lambda: gm.batches(x, y, 16, rng=0), "accumulate": 2, "steps_per_epoch": 9},
        "sizes": {"x": [(x[:90], y[:90]), (x[90:100], y[90:100]), *in_batches(x[100:], y[100:], 17)()]},
    }

    def run(**more: Any) -> gm.Network:
        net = make_net()
        fit(
            net, epochs=3, metrics=["accuracy"], **given[kind], **more,
            callbacks=[gm.callbacks.Checkpoint(tmp_path / "fit", steps=5)],
        )  # fmt: skip
        return net

    whole = run()
    with killed_behind(writes):
        run()
    resumed = run(resume=tmp_path / "fit")
    assert weights(resumed) == weights(whole)
    assert resumed.history is not None and whole.history is not None
    assert dict(resumed.history) == dict(whole.history)
    assert resumed._step == whole._step


def test_resume_on_other_batches(tmp_path: Path) -> None:
    x, y = data()
    path = tmp_path / "fit"

    def ending() -> Iterator[tuple[Array, Array]]:
        yield from in_batches(x[:320], y[:320])()
        raise KilledError

    with pytest.raises(KilledError):
        fit(make_net(), ending, callbacks=[gm.callbacks.Checkpoint(path, steps=4)])
    net = make_net()
    with pytest.raises(ValueError, match=r"batch \d+: \d+ samples come before it, \d+ did"):
        fit(
            net,
            [(x[:32], y[:32])] + [(x[:31], y[:31])] * 12,
            callbacks=[gm.callbacks.Checkpoint(path, steps=4)],
            resume=path,
        )
    net = make_net()
    before = weights(net)
    with pytest.raises(ValueError, match="resume needs batches that can be had again"):
        fit(net, in_batches(x, y)(), callbacks=[gm.callbacks.Checkpoint(path, steps=4)], resume=path)
    assert weights(net) == before
