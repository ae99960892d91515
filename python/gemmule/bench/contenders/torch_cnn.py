"""PyTorch on a convolutional network of the table, in either layout, eagerly and compiled.

The network takes rows (N, H, W, C), as whose view it has (N, C, H, W), or in the layout NCHW rows that lie
so. Its Flatten is channels-first: the next weights are permuted.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..cnn_tasks import Array, CnnTask, InferCnn, TrainCnn
from ..networks import EPS, Convolution, Flatten, Layer, MaxPooling, Mean, Residual, Shape, Weights, shapes
from ..sample import Turn, fastest
from . import torch_eager
from .torch_layers import arranged

torch = torch_eager.torch
_Module: Any = torch.nn.Module


def train(task: TrainCnn, layout: str) -> Turn:
    """With the fused optimizer, the faster one."""
    torch.set_num_threads(task.threads)
    x, y = task.data
    return torch_eager.training(
        task, network(task, layout), _rows(x, layout), torch.from_numpy(y), fused=True
    )


def infer(task: InferCnn, layout: str) -> Turn:
    torch.set_num_threads(task.threads)
    return torch_eager.calls(task, network(task, layout).eval(), _rows(task.data[0], layout))


def train_compiled(task: TrainCnn, layout: str) -> Turn:
    from . import torch_compiled

    torch.set_num_threads(task.threads)
    x, y = task.data
    net = network(task, layout)
    names = [name for name, _ in net.named_parameters()]
    parameters = [parameter.detach() for parameter in net.parameters()]

    def forward(parameters: list[Any], rows: Any) -> Any:
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (rows,))

    return torch_compiled.training(task, forward, parameters, _rows(x, layout), torch.from_numpy(y))


def infer_compiled(task: InferCnn, layout: str, variant: str | None = None) -> Turn:
    """Weights are the network's, or frozen: constants that inductor lays out anew."""
    from . import torch_compiled

    torch.set_num_threads(task.threads)

    names = ("plain", "frozen")

    def make(freeze: bool) -> Turn:
        net = network(task, layout).eval()
        with torch._inductor.config.patch(freezing=freeze):
            graph = torch_compiled.compiled_graph(lambda x: net(x))
            return torch_eager.calls(task, graph, _rows(task.data[0], layout), names[freeze])

    chosen = variant or fastest({"plain": partial(make, False), "frozen": partial(make, True)})
    return make(chosen == "frozen")


def network(task: CnnTask, layout: str) -> Any:
    """Modules with the task's weights."""
    modules: list[Any] = [_ToChannelsFirst()] if layout == "NHWC" else []
    modules += _modules(task.net.layers, task.net.input_shape, iter(task.weights()), layout)
    return torch.nn.Sequential(*modules)


def _modules(layers: Sequence[Layer], shape: Shape, weights: Iterator[Weights], layout: str) -> Iterator[Any]:
    nn = torch.nn
    images: tuple[int, ...] | None = None  # what the last Flatten had, until weights behind it are permuted
    for layer, before, _ in shapes(layers, shape):
        if isinstance(layer, Flatten):
            images = before
            yield nn.Flatten()
        elif isinstance(layer, Mean):
            yield nn.AdaptiveAvgPool2d(1)
            yield nn.Flatten()
        elif isinstance(layer, MaxPooling):
            yield nn.MaxPool2d(layer.size, layer.step, layer.padding)
        elif isinstance(layer, Residual):
            parts = [[*_modules(part, before, weights, layout)] for part in (layer.layers, layer.shortcut)]
            yield _Residual(*(nn.Sequential(*part) for part in parts))
        elif isinstance(layer, Convolution):
            given = next(weights)
            module = nn.Conv2d(
                before[2], layer.filters, layer.kernel, layer.stride, layer.padding, bias=not layer.norm
            )
            yield from _with(module, arranged(given.weight, layout), given, layer.relu)
        else:
            given = next(weights)
            weight = given.weight
            if images is not None:
                weight, images = channels_first(weight, images), None
            module = nn.Linear(*weight.shape[::-1])
            yield from _with(module, torch.from_numpy(weight), given, layer.relu)


def channels_first(weight: Array, images: tuple[int, ...]) -> Array:
    """Weights of rows that are (H, W, C), for rows that are (C, H, W)."""
    turned = weight.reshape(-1, *images).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(turned).reshape(weight.shape)


def _with(module: Any, weight: Any, given: Weights, relu: bool) -> Iterator[Any]:
    """The module with this weight, as it lies, the normalization and the activation."""
    module.weight = torch.nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    bias = torch.nn.Parameter(torch.from_numpy(given.bias))
    if given.norm is None:
        module.bias = bias
        yield module
    else:
        yield module
        norm = torch.nn.BatchNorm2d(len(given.bias), eps=EPS)
        norm.bias = bias
        scale, mean, variance = (torch.from_numpy(array) for array in given.norm)
        norm.weight = torch.nn.Parameter(scale)
        norm.running_mean, norm.running_var = mean, variance
        norm.num_batches_tracked = None  # of use without a momentum alone; no compiled graph may count it
        yield norm
    if relu:
        yield torch.nn.ReLU()


def _rows(x: Array, layout: str) -> Any:
    return torch.from_numpy(x) if layout == "NHWC" else arranged(x, layout)


class _ToChannelsFirst(_Module):  # type: ignore[misc]
    def forward(self, rows: Any) -> Any:
        return rows.permute(0, 3, 1, 2)


class _Residual(_Module):  # type: ignore[misc]
    def __init__(self, main: Any, around: Any) -> None:
        super().__init__()
        self.main, self.around = main, around

    def forward(self, x: Any) -> Any:
        return torch.relu(self.main(x) + self.around(x))
