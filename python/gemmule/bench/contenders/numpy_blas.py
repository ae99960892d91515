"""NumPy's matmul on the BLAS it was built with; OPENBLAS_CORETYPE forces the kernels of OpenBLAS."""

import importlib
import os
from typing import Any

import numpy as np

from ..sample import Turn, repeated
from ..tasks import Gemm


def version() -> str:
    """Version and BLAS; the core that OpenBLAS runs as too, where threadpoolctl is installed to ask it."""
    blas = _blas()
    text = f"NumPy {np.__version__}, {blas['name']} {blas['version']}"
    try:
        pools: list[dict[str, Any]] = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return text
    cores = {pool["architecture"] for pool in pools if pool.get("internal_api") == "openblas"}
    return f"{text} ({', '.join(sorted(cores))})" if cores else text


def gemm(task: Gemm) -> Turn:
    if "OPENBLAS_CORETYPE" in os.environ and "openblas" not in str(_blas()["name"]):
        raise ImportError(f"NumPy's BLAS here is {_blas()['name']}, not OpenBLAS")
    a, b, c = task.operands()
    np.matmul(a, b, out=c)
    task.check(a, b, c)
    return repeated("matmul(a, b, out=c)", matmul=np.matmul, a=a, b=b, c=c)


def _blas() -> dict[str, Any]:
    config: Any = np.show_config(mode="dicts")
    blas: dict[str, Any] = config["Build Dependencies"]["blas"]
    return blas
