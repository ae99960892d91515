"""gemmule."""

import gemmule as gm
from gemmule import _core

from ..sample import Turn, repeated, timed
from ..tasks import Gemm, Train


def version() -> str:
    return f"gemmule {gm.__version__} ({_core.active_isa()})"


def gemm(task: Gemm) -> Turn:
    gm.set_num_threads(task.threads)
    a, b, c = task.operands()
    options = "" if task.precision == "full" else f", precision={task.precision!r}"
    gm.ops.gemm(a, b, out=c, precision=task.precision)
    task.check(a, b, c)
    return repeated(f"gemm(a, b, out=c{options})", gemm=gm.ops.gemm, a=a, b=b, c=c)


def train(task: Train) -> Turn:
    gm.set_num_threads(task.threads)
    x, y = task.data
    net = gm.Network.mlp(list(task.sizes), activation="relu", rng=0)
    optimizer = gm.SGD(task.lr) if task.optimizer == "sgd" else gm.Adam(task.lr)

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
        )
        return float(history["loss"][-1])

    call()
    return timed(call)
