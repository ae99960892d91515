"""The machine's FMA ceiling: independent chains in registers, by gemmule's own kernels."""

from gemmule import _core

from ..sample import CeilingSample, CeilingTurn
from ..tasks import Task


def version() -> str:
    return f"FMA chains, {_core.active_isa()}"


def _ceiling(task: Task) -> CeilingTurn:
    def play(seconds: float) -> CeilingSample:
        return CeilingSample(flops_per_second=_core.fma_ceiling(task.dtype, task.threads, seconds))

    return play


gemm = train = infer = conv = pool = norm = train_cnn = infer_cnn = _ceiling
