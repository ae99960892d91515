"""PyTorch eager as a competent user writes it: tensors, no DataLoader, no value fetched between steps."""

import importlib
from typing import Any

from ..sample import Round, timed
from ..tasks import Gemm, Train

torch: Any = importlib.import_module("torch")


def version() -> str:
    return f"PyTorch {torch.__version__}"


def gemm(task: Gemm) -> Round:
    torch.set_num_threads(task.threads)
    arrays = task.operands()
    a, b, c = (torch.from_numpy(array) for array in arrays)

    def call() -> float:
        torch.mm(a, b, out=c)
        return 0.0

    call()
    task.check(*arrays)
    return timed(call)


def train(task: Train, fused: bool = False) -> Round:
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
