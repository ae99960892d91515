"""PyTorch compiled: gather, forward, loss, backward and update of a step are one graph of inductor's.

The step is written with `torch.func`, because a graph breaks at `loss.backward()`. The update is written out,
in place, for the same reason: it is that of torch.optim, and fuses with what comes before.
"""

import importlib
import os
from itertools import count
from typing import Any

from ..cnn_tasks import TrainCnn
from ..sample import Turn, timed
from ..tasks import Infer, Train

# Compile here: a pool of processes would live on, and its memory would count for nobody.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

torch: Any = importlib.import_module("torch")

from . import torch_eager  # noqa: E402  (it imports torch)

version = torch_eager.version

_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's
_numbers = count()


def train(task: Train) -> Turn:
    torch.set_num_threads(task.threads)
    x, y = map(torch.from_numpy, task.data)
    parameters = [torch.from_numpy(array) for layer in task.weights() for array in layer]
    return training(task, _forward, parameters, x, y)


def training(task: Train | TrainCnn, forward: Any, parameters: list[Any], x: Any, y: Any) -> Turn:
    """Of the function `forward` of the parameters, [W, b, W, b, ...], and rows of x."""
    torch.manual_seed(0)
    slots = [[torch.zeros_like(p) for p in parameters] for _ in range(_slot_count(task))]
    updates = torch.zeros(())  # a tensor: a number would be a constant of the graph
    total = torch.zeros(())
    measure = {"cross_entropy": torch.nn.functional.cross_entropy, "mse": torch.nn.functional.mse_loss}[
        task.loss
    ]
    loss_and_gradients = torch.func.grad_and_value(
        lambda parameters, rows, targets: measure(forward(parameters, rows), targets)
    )

    def step(rows: Any, targets: Any) -> None:
        gradients, loss = loss_and_gradients(parameters, rows, targets)
        updates.add_(1)
        _update(task, parameters, gradients, slots, updates)
        total.add_(loss * len(targets))

    def gathered(indices: Any) -> None:
        step(x.index_select(0, indices), y.index_select(0, indices))

    compiled = compiled_graph(gathered if task.shuffle else step)

    def call() -> float:
        for _ in range(task.epochs):
            total.zero_()
            if not task.shuffle:
                compiled(x, y)
                continue
            for indices in torch.randperm(task.samples).split(task.batch):
                compiled(indices)
        return float(total) / task.samples

    return torch_eager.within(torch.no_grad, lambda: timed(call))  # torch.func has gradients of its own


def infer(task: Infer) -> Turn:
    torch.set_num_threads(task.threads)
    net = torch_eager.network(task)
    x = torch.from_numpy(task.data[0])
    return torch_eager.calls(task, compiled_graph(lambda x: net(x)), x)


def compiled_graph(function: Any) -> Any:
    """Under a code object of its own: the graphs of one share a cache, which is searched at every call and
    has an end. For inference `freezing` and `cpp_wrapper` gave nothing."""
    function.__code__ = function.__code__.replace(co_name=f"graph_{next(_numbers)}")
    return torch.compile(function, dynamic=False, fullgraph=True)


def _forward(parameters: list[Any], rows: Any) -> Any:
    h = rows
    for index in range(0, len(parameters), 2):
        if index:
            h = torch.relu(h)
        h = torch.nn.functional.linear(h, parameters[index], parameters[index + 1])
    return h


def _slot_count(task: Train | TrainCnn) -> int:
    return {"sgd": 0, "momentum": 1, "adam": 2}[task.optimizer]


def _update(
    task: Train | TrainCnn, parameters: list[Any], gradients: Any, slots: list[list[Any]], updates: Any
) -> None:
    """As torch.optim.SGD and Adam."""
    if task.optimizer == "sgd":
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(task.lr * g)
    elif task.optimizer == "momentum":
        for p, g, velocity in zip(parameters, gradients, *slots, strict=True):
            velocity.mul_(task.momentum).add_(g)
            p.sub_(task.lr * velocity)
    else:
        rate = task.lr / (1 - _BETAS[0] ** updates)
        root = torch.sqrt(1 - _BETAS[1] ** updates)
        for p, g, mean, square in zip(parameters, gradients, *slots, strict=True):
            mean.mul_(_BETAS[0]).add_((1 - _BETAS[0]) * g)
            square.mul_(_BETAS[1]).add_((1 - _BETAS[1]) * g * g)
            p.sub_(rate * mean / (square.sqrt() / root + _EPS))
