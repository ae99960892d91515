"""Fixtures that all tests share: ISAs forced in turn, thread counts, the data beside the repository."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gemmule as gm
from gemmule import _core

ISAS = _core.known_isas()
TESTED: set[str] = set()  # those that the `isa` fixture really ran
REPOSITORY = Path(__file__).resolve().parent.parent


# Marks that NumPy's own tests carry; test_matmul.py imports some of them.
NUMPYS_MARKS = "iterations leaks_references parallel_threads slow_pypy thread_unsafe valgrind_error".split()


def pytest_configure(config: pytest.Config) -> None:
    for mark in NUMPYS_MARKS:
        config.addinivalue_line("markers", f"{mark}: NumPy's")


# Differs from avx512 in products in bfloat16 alone.
BF16_ONLY = "avx512_bf16"


@pytest.fixture(params=[name for name in ISAS if name != BF16_ONLY])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every ISA compiled in, forced for one test and restored after it."""
    yield from _forced(request.param)


@pytest.fixture(params=ISAS)
def bf16_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same for products in bfloat16: with the instruction, and as each ISA without it does them."""
    yield from _forced(request.param)


def _forced(name: str) -> Iterator[str]:
    if name not in _core.supported_isas():
        pytest.skip(f"this CPU lacks {name}")
    before = _core.active_isa()
    _core.force_isa(name)
    # A test of an ISA is worth something only if that ISA really runs.
    assert _core.active_isa() == name
    TESTED.add(name)
    yield name
    _core.force_isa(before)


@pytest.fixture
def thread_counts() -> Iterator[list[int]]:
    """Fewer threads than the cores of a small machine, as many, more; more than there are rows to share."""
    yield [1, 2, 3, 7, 16]
    gm.set_num_threads(None)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as a terminal's program has it: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Thread counts below, at and beyond the cores of a small machine."""
    count: int = request.param
    gm.set_num_threads(count)
    yield count
    gm.set_num_threads(None)


@pytest.fixture
def force_conv() -> Iterator[Callable[[str], None]]:
    """The path that convolutions of 3 x 3 take; by their sizes again after the test."""
    yield _core.force_conv
    _core.force_conv("")


@pytest.fixture
def direct_convolutions(force_conv: Callable[[str], None]) -> None:
    """Plain sums, to which tight tolerances belong; Winograd's are in test_winograd.py."""
    force_conv("direct")


@pytest.fixture
def force_training() -> Iterator[Callable[[str], None]]:
    """The form in which `fit` trains where the network allows it, see `_core.force_training`; chosen by sizes
    again after the test."""
    yield _core.force_training
    _core.force_training("")


@pytest.fixture
def fill_workspaces() -> Iterator[Callable[[int | None], None]]:
    """Fills the workspaces that are made from now on with a byte; with nothing again after the test."""
    yield _core.fill_workspaces
    _core.fill_workspaces(None)


@pytest.fixture
def copying(force_training: Callable[[str], None]) -> None:
    """A working copy of even the small networks of tests."""
    force_training("copied")


@pytest.fixture(params=["copied", "riding"])
def riding(request: pytest.FixtureRequest, force_training: Callable[[str], None]) -> str:
    """Updates ride on the gradients' ops: of a working copy, and of the stored parameters."""
    form: str = request.param
    force_training(form)
    return form


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The reference runs and data sets kept beside the repository, not in it."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return path


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tested = ", ".join(name for name in ISAS if name in TESTED) or "none"
    missing = ", ".join(name for name in ISAS if name not in _core.supported_isas()) or "none"
    terminalreporter.write_line(f"ISAs tested: {tested}; not on this CPU: {missing}")
