"""Square matrix products: gemmule, NumPy, NumPy with a forced OpenBLAS core type, PyTorch."""

from collections.abc import Sequence

from .harness import OURS, Case, Contender, Statistic, count_threads
from .machine import cpu_flags
from .tasks import Gemm

# OpenBLAS does not check that the CPU runs the core it is forced to: offer those whose flag is there.
_OPENBLAS_CORES = {"SkylakeX": "avx512f", "Haswell": "avx2"}


def runnable_openblas_cores() -> list[str]:
    """Those of SkylakeX and Haswell that this CPU runs."""
    flags = cpu_flags()
    return [core for core, flag in _OPENBLAS_CORES.items() if flag in flags]


def contenders(peer_python: str, openblas_cores: Sequence[str]) -> list[Contender]:
    """gemmule in this interpreter, the peers in theirs."""
    forced = [
        Contender(f"NumPy/{core}", "numpy_blas", peer_python, {"OPENBLAS_CORETYPE": core})
        for core in openblas_cores
    ]
    return [
        Contender(OURS, "ours"),
        Contender("NumPy", "numpy_blas", peer_python),
        *forced,
        Contender("PyTorch", "torch_eager", peer_python),
    ]


def cases(
    sizes: Sequence[int], dtypes: Sequence[str], threads: Sequence[int], statistic: Statistic
) -> list[Case]:
    """One per size, type and number of threads."""
    return [
        Case(f"{dtype}, {count_threads(count)}", str(size), Gemm(size, dtype, count), statistic)
        for count in threads
        for dtype in dtypes
        for size in sizes
    ]
