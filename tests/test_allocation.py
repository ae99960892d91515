"""Memory is taken before the first step of a run: a run of twice the steps allocates as often and touches as
many new pages. A hook in front of the allocator counts; operator new comes through it too."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_python

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="the hook wants glibc"
)

STEPS = (
    150  # of eight samples and more: NumPy keeps arrays below 1 KB, as masks of fewer would be, for itself
)

# One call of `fit` is one epoch of STEPS or 2 STEPS batches, after a few of either. Whatever else the process
# does (another member's late start, a team given up because the machine is crowded) can only add, so the
# least of several runs counts.
PROGRAM = """
import ctypes, gc, json, resource, sys
import numpy as np
import gemmule as gm

steps, threads = int(sys.argv[1]), int(sys.argv[2])
hook = ctypes.CDLL(None)
hook.allocations.restype = ctypes.c_long
x = np.random.default_rng(0).standard_normal((2 * steps * 64, 40), dtype=np.float32)
y = (x[:, 0] > 0).astype(np.int64)
gm.set_num_threads(threads)


def mlp(*widths):
    return lambda: gm.Network.mlp([40, *widths, 10], rng=0)


def dropout():
    return gm.Network([gm.Dense(40, 256, "relu"), gm.Dropout(0.3), gm.Dense(256, 10)], rng=0)


def convolution():
    layers = [gm.Conv2d(2, 8, 3, "relu"), gm.Flatten(), gm.Dense(None, 10)]
    return gm.Network(layers, input_shape=(4, 5, 2), rng=0)


large = mlp(256)
cases = {
    "a working copy, SGD": (large, lambda: gm.SGD(0.01), 64),
    "a working copy, Adam": (large, lambda: gm.Adam(), 64),
    "a working copy, dropout": (dropout, lambda: gm.SGD(0.01, momentum=0.9), 64),
    "a working copy, clipped by norm": (large, lambda: gm.Adam(clip_norm=0.1), 64),
    "where they lie, SGD": (large, lambda: gm.SGD(0.01), 8),
    "where they lie, Adam and dropout": (dropout, lambda: gm.Adam(ema=0.9), 8),
    "where they lie, clipped by norm": (large, lambda: gm.RMSprop(clip_norm=0.1, max_norm=1.0), 8),
    "Muon": (large, lambda: gm.Muon(0.01), 64),
    "small": (mlp(8), lambda: gm.SGD(0.01), 64),
    "a rate for every update": (large, lambda: gm.SGD(gm.schedules.Exponential(0.01, 0.99)), 64),
    "augmented images": (convolution, lambda: gm.SGD(0.01), 64),
}
found = {}
for name, (network, optimizer, batch) in cases.items():
    net, opt = network(), optimizer()
    images = network is convolution
    given = x.reshape(-1, 4, 5, 2) if images else x
    augment = gm.Augment(flip=True, crop=2) if images else None

    def run(count):
        rows = slice(0, count * batch)
        gc.collect()
        gc.disable()
        before = hook.allocations(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        net.fit(given[rows], y[rows], loss="cross_entropy", optimizer=opt, epochs=1, batch_size=batch,
                metrics=["accuracy"], progress=False, augment=augment)
        after = hook.allocations(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        gc.enable()
        return [b - a for a, b in zip(before, after)]

    runs = [(run(steps), run(2 * steps)) for _ in range(6)]
    found[name] = [[min(pair[i][k] for pair in runs[2:]) for k in range(2)] for i in range(2)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to make the hook with")
    library = tmp_path_factory.mktemp("hook") / "allocations.so"
    source = Path(__file__).with_name("allocations.c")
    command = [compiler, "-O1", "-fPIC", "-shared", "-fno-builtin", str(source), "-o", str(library)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return library


def test_small_networks_form_no_team() -> None:
    """libgomp's threads live on behind the first team, so they are there to be counted. A team of a machine
    with other work waits a time slice whenever it meets: one run of 0.3 s took 10."""
    program = """
import os
import numpy as np
import gemmule as gm

gm.set_num_threads(4)
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
x = np.random.default_rng(0).standard_normal((150, 4), dtype=np.float32)
y = np.arange(150) % 3
for batch_size in (8, 32, None):
    for hidden in ([], [16], [64]):
        net = gm.Network.mlp([4, *hidden, 3], rng=0)
        net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=batch_size,
                validation_split=0.2, metrics=["accuracy"], progress=False)
        net.predict(x), net.evaluate(x, y)
assert count() == before, (before, count())
net = gm.Network.mlp([300, 500, 10], rng=0)
net.fit(np.ones((256, 300), np.float32), np.zeros(256, int), loss="cross_entropy", epochs=1, batch_size=128)
assert count() == before + 3, (before, count())
"""
    run = run_python(program)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_no_allocation_after_the_first_step(hook: Path, threads: int) -> None:
    program = f"import sys; sys.argv[1:] = ['{STEPS}', '{threads}']\n{PROGRAM}"
    # What is freed at the end of a run stays with the process, or every run would touch it anew.
    kept = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
    run = run_python(program, LD_PRELOAD=str(hook), **kept)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for name, ((once, faults), (twice, more_faults)) in found.items():
        assert once > 0, f"{name}: the hook counts nothing"
        # Of the process around the run, one may be there in every run of one length (74 beside 75 was seen).
        assert abs(twice - once) <= 2, f"{name}: {twice - once} allocations more in {STEPS} steps more"
        assert more_faults - faults < STEPS // 4, f"{name}: {more_faults - faults} page faults more"
