"""The machine a figure belongs to: figures of two machines do not compare."""

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from .. import _core
from .outcome import count_threads

_TELLING_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve")


def describe() -> dict[str, str]:
    """CPU model, cores, vector extensions, system, Python, load and date."""
    cpuinfo = _cpuinfo()
    flags = cpu_flags()
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "family, model": f"{cpuinfo.get('cpu family', '?')}, {cpuinfo.get('model', '?')}",
        "usable cores": str(usable_cores()),
        "vector extensions": " ".join(flag for flag in _TELLING_FLAGS if flag in flags) or "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def ceilings(kinds: Iterable[tuple[str, int]]) -> dict[str, float]:
    """FLOP/s of the FMA chains of every ISA that runs here, per (type, threads) in `kinds`."""
    active = _core.active_isa()
    rates = {}
    try:
        for dtype, threads in kinds:
            for isa in _core.supported_isas():
                _core.force_isa(isa)
                rate = max(_core.fma_ceiling(dtype, threads, 0.01) for _ in range(5))
                rates[f"{dtype}, {count_threads(threads)}, {isa}"] = rate
    finally:
        _core.force_isa(active)
    return rates


def usable_cores() -> int:
    """Logical processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_flags() -> set[str]:
    """The feature flags of /proc/cpuinfo (x86 and Arm names); empty where there is none."""
    cpuinfo = _cpuinfo()
    return set(cpuinfo.get("flags", cpuinfo.get("Features", "")).split())


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
