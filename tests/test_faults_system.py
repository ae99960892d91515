"""What users of a numeric library run into, by case number: processes, memory, ISAs, files, threads."""

import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, environment, regression, regressor, run_python, weights

import gemmule as gm
from gemmule import _core

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes and signals")

# -- processes, memory, instruction sets ---------------------------------------------------------------------


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fault_8_a_forked_child_computes() -> None:
    """libgomp hangs in a child forked after a parallel region unless the team is given up before the fork."""
    net = gm.Network.mlp([300, 400, 10], rng=0)
    x = np.random.default_rng(0).standard_normal((512, 300)).astype(np.float32)
    y = np.zeros(512, np.int64)
    gm.set_num_threads(2)
    try:
        net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=256)
        want = net.predict(x)
        child = os.fork()
        if child == 0:
            # Whatever happens, the child must not return into pytest.
            try:
                good = bool((net.predict(x) == want).all())
                net.fit(x, y, loss="cross_entropy", epochs=1, batch_size=256)
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        deadline = time.monotonic() + 20
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < deadline:
            time.sleep(0.02)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        assert os.waitstatus_to_exitcode(status) == 0
        np.testing.assert_array_equal(net.predict(x), want)  # and the parent goes on
    finally:
        gm.set_num_threads(None)


@pytest.mark.parametrize("entry", ["fit", "predict", "gemm"])
def test_fault_9_a_failed_allocation_is_a_memory_error_and_changes_nothing(entry: str) -> None:
    """The hook lets every allocation of the call fail in turn, until one run needs no more of them."""
    x, y = regression()
    a = np.ones((300, 400), np.float32)

    def run(net: gm.Network) -> None:
        if entry == "fit":
            net.fit(x, y, loss="mse", optimizer="adam", epochs=1, batch_size=32)
        elif entry == "predict":
            net.predict(x)
        else:
            gm.ops.gemm(a, a.T)

    failures = 0
    for count in range(1000):
        net = regressor()
        before = weights(net)
        _core.fail_allocation_after(count)
        try:
            run(net)
        except MemoryError:
            failures += 1
        else:
            break
        finally:
            _core.fail_allocation_after(-1)
        assert weights(net) == before
        run(net)  # the network is whole: the same call works
    else:
        pytest.fail("1000 allocations in one call")
    assert failures == count
    if entry == "fit":
        assert failures > 0


def test_fault_10_an_isa_can_be_forced_lower_from_outside() -> None:
    show = "from gemmule import _core; print(_core.active_isa())"
    for name in _core.supported_isas():
        assert run_python(show, GEMMULE_MAX_ISA=name).stdout.split() == [name]
    refused = run_python(show, GEMMULE_MAX_ISA="avx1024")
    assert refused.returncode != 0
    assert re.search("ImportError|ValueError", refused.stderr)
    for name in _core.known_isas():
        assert name in refused.stderr


def test_fault_10_an_isa_the_cpu_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"baseline|neon"):
        _core.force_isa("avx1024")
    for name in set(_core.known_isas()) - set(_core.supported_isas()):
        with pytest.raises(gm.DeviceError, match=name):
            _core.force_isa(name)


# -- files ---------------------------------------------------------------------------------------------------


@posix
@pytest.mark.slow
def test_fault_13_kill_9_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    code = (
        "import sys, gemmule as gm\n"
        "net = gm.Network.mlp([500, 1000, 10], rng=0)\n"
        "while True:\n"
        "    net.save(sys.argv[1]); print('.', flush=True)\n"
    )
    for delay in (0.0, 0.003, 0.011):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait()
        child.stdout.close()
        assert gm.load(path)[0].weight.shape == (1000, 500)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_fault_13_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "net.safetensors"
    net = regressor()
    net.save(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    net[0].bias += 1
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        net.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_fault_15_malformed_files_are_file_errors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    regressor().save(path)
    whole = path.read_bytes()
    cases = [
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        whole + b"\0",
        struct.pack("<Q", 2**63) + whole[8:],
        struct.pack("<Q", 100_000_001) + whole[8:],
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",  # well formed, but no network of ours
    ]
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(gm.FileError):
            gm.load(path)
    with pytest.raises(FileNotFoundError):
        gm.load(tmp_path / "absent.safetensors")


def test_fault_18_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        path.write_bytes(pickle.dumps(Bomb(), protocol))
        with pytest.raises(gm.FileError, match="safetensors"):
            gm.load(path)
    assert not (tmp_path / "exploded").exists()


# -- threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [64, 96])
def test_fault_19_threads_do_not_change_a_bit_of_training(isa: str, batch_size: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((320, 200)).astype(np.float32), rng.integers(0, 10, 320)
    seen = set()
    for count in (1, 2, 3, 7):
        gm.set_num_threads(count)
        layers = [gm.Dense(200, 300, "gelu"), gm.Dropout(0.3), gm.Dense(300, 10)]
        net = gm.Network(layers, rng=0)
        net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=batch_size)
        seen.add(b"".join(weights(net).values()) + net.predict(x).tobytes())
    gm.set_num_threads(None)
    assert len(seen) == 1


def test_fault_20_a_nan_stays_in_its_row(isa: str) -> None:
    x, _ = regression()
    x[3, 1] = np.nan
    for activation in (
        "relu",
        "leaky_relu",
        "elu",
        "gelu",
        "gelu_tanh",
        "silu",
        "sigmoid",
        "tanh",
        "softplus",
    ):
        net = gm.Network([gm.Dense(5, 20, activation), gm.Dense(20, 3), gm.Activation("softmax")], rng=0)
        nan = np.isnan(net.predict(x))
        assert nan[3].all(), activation
        assert not np.delete(nan, 3, axis=0).any(), activation


@pytest.mark.parametrize("other", ["torch", "sklearn.neural_network"])
@pytest.mark.parametrize("first", ["other", "gemmule"])
def test_fault_21_beside_another_openmp(other: str, first: str) -> None:
    pytest.importorskip(other.split(".")[0])
    names = [other, "gemmule"] if first == "other" else ["gemmule", other]
    work = (
        "import numpy as np, gemmule as gm\n"
        "net = gm.Network.mlp([300, 300, 10], rng=0)\n"
        "net.fit(np.ones((256, 300)), np.zeros(256, int), loss='cross_entropy', epochs=2, batch_size=128)\n"
        "print('done')"
    )
    assert run_python("\n".join(f"import {name}" for name in names) + "\n" + work).stdout.split() == ["done"]


def test_fault_22_thread_count_from_the_environment() -> None:
    show = "from gemmule import _core; print(_core.num_threads())"
    assert run_python(show, OMP_NUM_THREADS="3").stdout.split() == ["3"]
    change = "; _core.set_num_threads(5); print(_core.num_threads()); _core.set_num_threads(None)"
    again = show + change + "; print(_core.num_threads())"
    assert run_python(again, OMP_NUM_THREADS="3").stdout.split() == ["3", "5", "3"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_fault_22_thread_count_from_the_affinity_mask() -> None:
    code = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None)\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from gemmule import _core; print(_core.num_threads())"
    )
    assert run_python(code).stdout.split() == ["1"]


def test_fault_23_concurrent_predict_equals_serial() -> None:
    net = gm.Network.mlp([50, 80, 10], activation="gelu", rng=0)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((rows, 50)).astype(np.float32) for rows in (1, 7, 64, 300) * 10]
    want = [net.predict(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(net.predict, inputs), want, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_fault_23_a_second_fit_on_the_same_network_is_refused() -> None:
    x, y = regression()
    entered, release = threading.Event(), threading.Event()

    def wait(z: Array) -> Array:
        entered.set()
        release.wait(30)
        return z

    net = gm.Network([gm.Dense(5, 2), gm.Activation((wait, np.ones_like))], rng=0)
    thread = threading.Thread(target=lambda: net.fit(x, y, loss="mse", epochs=1, batch_size=96))
    thread.start()
    try:
        assert entered.wait(30)
        before = weights(net)
        with pytest.raises(RuntimeError, match="fit"):
            net.fit(x, y, loss="mse", epochs=1)
        assert weights(net) == before
    finally:
        release.set()
        thread.join()
    net.fit(x, y, loss="mse", epochs=1)
