"""gemmule."""

from typing import Any

import gemmule as gm
from gemmule import _core

from ..sample import Turn, repeated, timed
from ..tasks import Gemm, Infer, NetworkTask, Train


def version() -> str:
    return f"gemmule {gm.__version__} ({_core.active_isa()})"


def gemm(task: Gemm) -> Turn:
    gm.set_num_threads(task.threads)
    a, b, c = task.operands()
    options = "" if task.precision == "full" else f", precision={task.precision!r}"
    gm.ops.gemm(a, b, out=c, precision=task.precision)
    task.check(a, b, c)
    return repeated(f"gemm(a, b, out=c{options})", gemm=gm.ops.gemm, a=a, b=b, c=c)


def train(task: Train, precision: str | None = None) -> Turn:
    gm.set_num_threads(task.threads)
    x, y = task.data
    net = _network(task)
    optimizer = gm.Adam(task.lr) if task.optimizer == "adam" else gm.SGD(task.lr, momentum=task.momentum)

    def call() -> float:
        history = net.fit(
            x,
            y,
            loss=task.loss,
            optimizer=optimizer,
            epochs=task.epochs,
            batch_size=task.batch,
            shuffle=task.shuffle,
            progress=False,
            precision=precision,
        )
        return float(history["loss"][-1])

    return timed(call)


def infer(task: Infer) -> Turn:
    gm.set_num_threads(task.threads)
    net = _network(task)
    (x,) = task.data
    task.check(net.predict(x))
    return repeated("net.predict(x)", net=net, x=x)


def _network(task: NetworkTask) -> gm.Network:
    net = gm.Network.mlp(list(task.sizes), activation="relu", rng=0)
    layers: list[Any] = list(net)
    for layer, (weight, bias) in zip(layers, task.weights(), strict=True):
        layer.weight, layer.bias = weight, bias
    return net
