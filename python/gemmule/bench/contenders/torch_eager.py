"""PyTorch eager as a competent user writes it: tensors, no DataLoader, no value fetched between steps."""

import importlib
from collections.abc import Callable
from typing import Any

from ..cnn_tasks import InferCnn, TrainCnn
from ..sample import Sample, Turn, repeated, timed
from ..tasks import Gemm, Infer, NetworkTask, Train

torch: Any = importlib.import_module("torch")


def version() -> str:
    return f"PyTorch {torch.__version__}"


def gemm(task: Gemm) -> Turn:
    a, b, c = tensors(task)
    torch.mm(a, b, out=c)
    task.check(
        *(tensor.float().numpy() if task.precision == "bf16" else tensor.numpy() for tensor in (a, b, c))
    )
    return repeated("mm(a, b, out=c)", mm=torch.mm, a=a, b=b, c=c)


def tensors(task: Gemm) -> list[Any]:
    """A, B and C, with the threads set and no gradients recorded; of bfloat16 where the task is."""
    torch.set_num_threads(task.threads)
    torch.set_grad_enabled(False)
    made = [torch.from_numpy(array) for array in task.operands()]
    return [tensor.bfloat16() for tensor in made] if task.precision == "bf16" else made


def train(task: Train, fused: bool = False) -> Turn:
    torch.set_num_threads(task.threads)
    x, y = map(torch.from_numpy, task.data)
    return training(task, network(task), x, y, fused)


def training(task: Train | TrainCnn, net: Any, x: Any, y: Any, fused: bool) -> Turn:
    """Of `net` on rows of x, with torch.optim."""
    torch.manual_seed(0)
    criterion = {"cross_entropy": torch.nn.CrossEntropyLoss, "mse": torch.nn.MSELoss}[task.loss]()
    if task.optimizer == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=task.lr, fused=fused)
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=task.lr, momentum=task.momentum, fused=fused)

    def step(rows: Any, targets: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(net(rows), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def epoch() -> Any:
        if not task.shuffle:
            return step(x, y)
        total = torch.zeros(())
        order = torch.randperm(task.samples)
        for indices in order.split(task.batch):
            loss = step(x.index_select(0, indices), y.index_select(0, indices))
            total.add_(loss, alpha=len(indices))
        return total / task.samples

    def call() -> float:
        for _ in range(task.epochs):
            loss = epoch()
        return float(loss)

    return timed(call)


def infer(task: Infer) -> Turn:
    torch.set_num_threads(task.threads)
    return calls(task, network(task), torch.from_numpy(task.data[0]))


def calls(task: Infer | InferCnn, net: Any, x: Any, variant: str | None = None) -> Turn:
    """Of `net` on x, without the bookkeeping of gradients."""

    def make() -> Turn:
        task.check(net(x).numpy())
        return repeated("net(x)", variant, net=net, x=x)

    return within(torch.inference_mode, make)


def within(mode: Any, make: Callable[[], Turn]) -> Turn:
    """The turn that `make` makes, made and played in a context."""
    with mode():
        turn = make()

    def play(seconds: float) -> Sample:
        with mode():
            return turn(seconds)

    return play


def network(task: NetworkTask) -> Any:
    """Linear layers and ReLUs with the task's weights."""
    layers: list[Any] = []
    for weight, bias in task.weights():
        linear = torch.nn.Linear(*weight.shape[::-1])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
