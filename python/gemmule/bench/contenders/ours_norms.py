"""gemmule's normalizations: the kernels that a training step calls."""

from typing import Any

import numpy as np

import gemmule as gm
from gemmule import _core

from ..layer_tasks import on_lines
from ..norm_tasks import EPS, Norm
from ..sample import Turn, repeated


def norm(task: Norm) -> Turn:
    gm.set_num_threads(task.threads)
    x, weight, bias, dy = task.operands()
    y, dx = (on_lines(np.full_like(x, np.nan)) for _ in range(2))
    sums = np.full((2, task.channels), np.nan, np.float32)  # of the bias's gradient, then the weight's
    if task.mode == "batch":
        view: tuple[int, ...] = (-1, task.channels)
        stats = np.full((3, task.channels), np.nan, np.float32)
        forward = "core.batch_stats(x, eps, stats); core.batch_norm(x, stats, weight, bias, y)"
        backward = (
            "core.batch_norm_sums(dy, x, stats, sums); core.batch_norm_grad(dy, x, stats, weight, sums, dx)"
        )
    else:
        view = (task.batch, 1, task.channels)
        stats = np.full((task.batch, 1, 2), np.nan, np.float32)
        forward = "core.group_norm(x, 1, weight, bias, eps, y, stats)"
        backward = (
            "core.group_norm_sums(dy, x, 1, stats, sums); core.group_norm_grad(dy, x, 1, stats, weight, dx)"
        )
    arrays = {name: array.reshape(view) for name, array in {"x": x, "y": y, "dy": dy, "dx": dx}.items()}
    names: dict[str, Any] = {"core": _core, "eps": EPS, "stats": stats, "sums": sums, **arrays}
    names |= {"weight": weight, "bias": bias}
    turn = repeated(forward, **names)  # it calls them once at least
    task.check_forward(x, weight, bias, y)
    if task.backward:
        turn = repeated(backward, **names)
        task.check_backward(x, weight, dy, dx, sums[1], sums[0])
    return turn
