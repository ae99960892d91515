"""The package as a whole: what it imports, what it says about the machine and about its work."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import run_python

import gemmule as gm
from gemmule import _core


def test_only_numpy_is_imported() -> None:
    """Everything that is not in the standard library, after an import and a little training."""
    code = (
        "import sys, json, numpy as np, numpy.random; before = set(sys.modules)\n"
        "import gemmule as gm\n"
        "net = gm.Network.mlp([2, 3, 1], rng=0)\n"
        "net.fit(np.ones((4, 2)), np.ones(4), loss='mse', progress=False)\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(names - set(sys.stdlib_module_names))))"
    )
    assert set(json.loads(run_python(code).stdout)) <= {"gemmule", "numpy"}


def test_an_import_takes_along_little() -> None:
    """What few need is imported where it is used: these took a quarter of the time of `import gemmule`."""
    code = (
        "import sys, json, numpy; before = set(sys.modules)\n"
        "import gemmule\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = set(json.loads(run_python(code).stdout))
    assert "gemmule.network" in loaded
    assert not loaded & {"argparse", "asyncio", "csv", "inspect", "mmap", "pathlib", "queue", "subprocess"}


def test_the_package_is_typed_and_names_what_it_has() -> None:
    assert (Path(gm.__file__).parent / "py.typed").exists()
    for name in gm.__all__:
        assert hasattr(gm, name), name


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    gm.show_config()
    out = capsys.readouterr().out
    for fact in (gm.__version__, _core.active_isa(), np.__version__, "cpu"):
        assert fact in out


def test_thread_count_is_checked() -> None:
    with pytest.raises(ValueError, match="0"):
        gm.set_num_threads(0)
    with pytest.raises(TypeError, match=r"1\.5"):
        gm.set_num_threads(1.5)
    gm.set_num_threads(3)
    assert gm.num_threads() == 3
    gm.set_num_threads(None)


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_verbose_names_op_shape_path_and_isa(isa: str) -> None:
    code = (
        "import numpy as np, gemmule as gm\n"
        "gm.Network.mlp([784, 256, 10], rng=0).predict(np.ones((64, 784), np.float32))"
    )
    lines = run_python(code, GEMMULE_VERBOSE="1", GEMMULE_MAX_ISA=isa).stderr.splitlines()
    dense = [line for line in lines if "dense" in line]
    assert len(dense) == 2
    for line, shapes in zip(dense, ("64x784 256x784 64x256", "64x256 10x256 64x10"), strict=True):
        for word in (*shapes.split(), "path=", f"isa={isa}"):
            assert word in line
    assert run_python(code).stderr == ""


def test_verbose_counts_the_operations_of_the_batch() -> None:
    """Microseconds times GFLOP/s are thousands of operations: 2 M N K for every product of a step."""
    code = (
        "import numpy as np, gemmule as gm\n"
        "net = gm.Network([gm.Dense(784, 256)], rng=0)\n"
        "net.fit(np.ones((640, 784), np.float32), np.ones((640, 256)), loss='mse', epochs=1, batch_size=640)"
    )
    lines = [line.split() for line in run_python(code, GEMMULE_VERBOSE="1").stderr.splitlines()]
    products = [line for line in lines if line[1] in ("dense", "matmul")]
    assert [line[1] for line in products] == ["dense", "matmul"]
    for line in products:
        operations = float(line[line.index("us") - 1]) * float(line[line.index("GFLOP/s") - 1]) * 1e3
        assert operations == pytest.approx(2 * 640 * 784 * 256, rel=0.05)
