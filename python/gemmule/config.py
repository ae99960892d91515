"""The machine as gemmule sees it, and its settings."""

import platform
import sys

import numpy as np

from . import _core

_MOST_THREADS = 256  # as csrc/core/threads.h has it


def config() -> dict[str, str]:
    """What `show_config` prints."""
    build = _core.build_info()
    return {
        "gemmule": build["version"],
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy": np.__version__,
        "device": "cpu",
        "isa": _core.active_isa(),
        "isas supported": ", ".join(_core.supported_isas()),
        "isas compiled in": ", ".join(_core.known_isas()),
        "threads": str(_core.num_threads()),
        "compiler": build["compiler"],
        "openmp": build["openmp"],
        "build type": build["build_type"],
    }


def show_config() -> None:
    """Print version, device, instruction set, threads and build."""
    entries = config()
    width = max(map(len, entries))
    for key, value in entries.items():
        print(f"{key:<{width}}  {value}")


def num_threads() -> int:
    """Threads that kernels use."""
    return _core.num_threads()


def set_num_threads(count: int | None) -> None:
    """Use `count` threads from now on; None goes back to the default.

    That is `OMP_NUM_THREADS` where set, else the smaller of the physical cores this process may run on and
    its cgroup's quota. Other libraries' threads are left alone. ValueError for other than 1 to 256."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer)):
        raise TypeError(f"set_num_threads: count must be an integer or None, not {count!r}")
    if count is not None and not 1 <= count <= _MOST_THREADS:
        raise ValueError(f"set_num_threads: count is {count}; it must be 1 to {_MOST_THREADS}")
    _core.set_num_threads(None if count is None else int(count))


def set_verbose(on: bool) -> None:
    """Name every operation's shape, path, ISA and time on stderr, as GEMMULE_VERBOSE=1 does."""
    _core.set_verbose(bool(on))
