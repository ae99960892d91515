"""PyTorch's convolution and pooling, in either layout: channels-last ("NHWC") or contiguous ("NCHW")."""

from typing import Any

from ..layer_tasks import Array, Conv, Pool
from ..sample import Turn, repeated
from . import torch_eager

torch = torch_eager.torch


def conv(task: Conv, layout: str) -> Turn:
    return _played(task, lambda: _conv(task, layout))


def pool(task: Pool, layout: str) -> Turn:
    return _played(task, lambda: _pool(task, layout))


def arranged(array: Array, layout: str) -> Any:
    """Images or filters that lie channels-last as the tensor (N, C, H, W) of a layout."""
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    return tensor if layout == "NHWC" else tensor.contiguous()


def from_images(tensor: Any) -> Array:
    """Channels-last again."""
    array: Array = tensor.permute(0, 2, 3, 1).numpy()
    return array


def _played(task: Conv | Pool, make: Any) -> Turn:
    torch.set_num_threads(task.threads)
    turn: Turn = torch_eager.within(torch.no_grad, make)
    return turn


def _conv(task: Conv, layout: str) -> Turn:
    arrays = task.operands()
    x, weight, dz = (arranged(array, layout) for array in arrays)
    options: tuple[Any, ...]
    if not task.backward:
        run = torch.nn.functional.conv2d
        options = None, task.stride, task.padding, 1, task.groups
        task.check_forward(*arrays[:2], from_images(run(x, weight, *options)))
        return repeated("run(x, weight, *options)", run=run, x=x, weight=weight, options=options)
    run = torch.ops.aten.convolution_backward.default
    stride, padding, mask = [task.stride] * 2, [task.padding] * 2, [task.input_grad, True, False]
    options = None, stride, padding, [1, 1], False, [0, 0], task.groups, mask
    dx, dweight, _ = run(dz, x, weight, *options)
    task.check_backward(*arrays, from_images(dx) if task.input_grad else None, from_images(dweight))
    return repeated("run(dz, x, weight, *options)", run=run, dz=dz, x=x, weight=weight, options=options)


def _pool(task: Pool, layout: str) -> Turn:
    """Forward as a network that is trained calls it: the largest pixels' places are kept."""
    arrays = task.operands()
    x, dy = (arranged(array, layout) for array in arrays)
    aten, window, none = torch.ops.aten, [task.kernel] * 2, [0, 0]
    options: tuple[Any, ...]
    behind: tuple[Any, ...]
    if task.mode == "max":
        forward, options = aten.max_pool2d_with_indices.default, (window, window, none, [1, 1], False)
        y, places = forward(x, *options)
        backward, behind = aten.max_pool2d_with_indices_backward.default, (*options, places)
    else:
        forward, options = aten.avg_pool2d.default, (window, window, none, False, True, None)
        y = forward(x, *options)
        backward, behind = aten.avg_pool2d_backward.default, options
    if not task.backward:
        task.check_forward(arrays[0], from_images(y))
        return repeated("run(x, *options)", run=forward, x=x, options=options)
    task.check_backward(*arrays, from_images(backward(dy, x, *behind)))
    return repeated("run(dy, x, *options)", run=backward, dy=dy, x=x, options=behind)
