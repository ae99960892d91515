"""The peak of a process's resident memory. It needs no NumPy: it is read before and after."""

import contextlib
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> int:
    """Let the peak begin anew where the system can (Linux), and return it in bytes."""
    with contextlib.suppress(OSError):  # then what was freed before counts as memory at hand
        _CLEAR.write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """In bytes. Linux's own figure of this process first: `ru_maxrss` there is at least what the parent had
    when it started us."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        return _maximum()


def _maximum() -> int:
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
