"""Matrix products: gemmule, NumPy, NumPy with a forced OpenBLAS core type, PyTorch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .harness import Contender
from .machine import cpu_flags
from .outcome import OURS, Case, Statistic, count_threads
from .shapes import Shape, shape_set, squares
from .tasks import Gemm, Task

# OpenBLAS does not check that the CPU runs the core it is forced to: offer those whose flag is there. Best
# first.
_OPENBLAS_CORES = {"SkylakeX": "avx512f", "Haswell": "avx2"}


def best_openblas_core() -> list[str]:
    """The best of SkylakeX and Haswell that this CPU runs, or none."""
    flags = cpu_flags()
    return [core for core, flag in _OPENBLAS_CORES.items() if flag in flags][:1]


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
        Contender("torch mm", "torch_eager", peer_python),
        Contender("torch linear", "torch_linear", peer_python, takes=_is_forward),
    ]


def bf16_contenders(peer_python: str) -> list[Contender]:
    """gemmule from float32 arrays, PyTorch from and to tensors of bfloat16, and gemmule in float32."""
    return [
        Contender(OURS, "ours"),
        Contender("gemmule f32", "ours_full"),
        Contender("torch bf16 mm", "torch_eager", peer_python),
    ]


def in_bf16(cases: Iterable[Case]) -> list[Case]:
    """The same with operands rounded to bfloat16."""
    return [
        replace(case, group=f"bf16, {case.group}", task=replace(case.task, precision="bf16"))
        for case in cases
        if isinstance(case.task, Gemm)
    ]


def square_cases(
    sizes: Iterable[int], dtypes: Iterable[str], threads: Iterable[int], statistic: Statistic
) -> list[Case]:
    """One per size, type and number of threads."""
    return [
        case
        for count in threads
        for dtype in dtypes
        for case in _cases("", squares(sizes), dtype, count, statistic)
    ]


def set_cases(
    names: Sequence[str], dtypes: Sequence[str], threads: Iterable[int], statistic: Statistic, quick: bool
) -> list[Case]:
    """One per shape of each set, type and number of threads; the set f64 has a type of its own."""
    return [
        case
        for count in threads
        for name in names
        for dtype in (["float64"] if name == "f64" else dtypes)
        for case in _cases(name, shape_set(name, quick), dtype, count, statistic)
    ]


def _cases(name: str, shapes: Iterable[Shape], dtype: str, threads: int, statistic: Statistic) -> list[Case]:
    group = f"{name}, " * bool(name) + f"{dtype}, {count_threads(threads)}"
    return [
        Case(
            group,
            shape.label,
            Gemm(shape.m, shape.n, shape.k, dtype, threads, shape.trans_a, shape.trans_b),
            statistic,
            name,
        )
        for shape in shapes
    ]


def _is_forward(task: Task) -> bool:
    """Whether it is Z = X W^T, with W as it lies in memory."""
    return isinstance(task, Gemm) and task.trans_b
