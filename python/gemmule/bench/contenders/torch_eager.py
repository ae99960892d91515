"""PyTorch eager as a competent user writes it: tensors, no DataLoader, no value fetched between steps."""

import importlib
from typing import Any

from ..sample import Turn, repeated, timed
from ..tasks import Gemm, Train

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
    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in task.data)
    layers: list[Any] = []
    for n_in, n_out in zip(task.sizes, task.sizes[1:], strict=False):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    criterion = {"cross_entropy": torch.nn.CrossEntropyLoss, "mse": torch.nn.MSELoss}[task.loss]()
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[task.optimizer]
    optimizer = rule(net.parameters(), lr=task.lr, fused=fused)

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

    call()
    return timed(call)
