"""The machine a figure belongs to: figures of two machines do not compare."""

import datetime
import os
import platform
from pathlib import Path

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
