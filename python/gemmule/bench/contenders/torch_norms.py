"""PyTorch's normalizations, images in either layout."""

from typing import Any

from ..norm_tasks import EPS, Norm
from ..sample import Turn, repeated
from . import torch_eager
from .torch_layers import arranged, from_images

torch = torch_eager.torch


def norm(task: Norm, layout: str) -> Turn:
    torch.set_num_threads(task.threads)
    turn: Turn = torch_eager.within(torch.no_grad, lambda: _norm(task, layout))
    return turn


def _norm(task: Norm, layout: str) -> Turn:
    arrays = task.operands()
    images = task.mode == "batch"
    x, dy = (arranged(a, layout) if images else torch.from_numpy(a) for a in (arrays[0], arrays[3]))
    weight, bias = map(torch.from_numpy, arrays[1:3])
    aten, every = torch.ops.aten, [True, True, True]
    options: tuple[Any, ...]
    behind: tuple[Any, ...]
    if images:
        mean, variance = torch.zeros(task.channels), torch.ones(task.channels)
        forward, options = aten.native_batch_norm.default, (weight, bias, mean, variance, True, 0.1, EPS)
        y, *kept = forward(x, *options)
        backward = aten.native_batch_norm_backward.default
        behind = weight, mean, variance, *kept, True, EPS, every
    else:
        forward, options = aten.native_layer_norm.default, ([task.channels], weight, bias, EPS)
        y, *kept = forward(x, *options)
        backward, behind = (
            aten.native_layer_norm_backward.default,
            ([task.channels], *kept, weight, bias, every),
        )
    back = from_images if images else lambda tensor: tensor.numpy()
    task.check_forward(arrays[0], arrays[1], arrays[2], back(y))
    if not task.backward:
        return repeated("run(x, *options)", run=forward, x=x, options=options)
    dx, dweight, dbias = backward(dy, x, *behind)
    task.check_backward(arrays[0], arrays[1], arrays[3], back(dx), dweight.numpy(), dbias.numpy())
    return repeated("run(dy, x, *behind)", run=backward, dy=dy, x=x, behind=behind)
