"""fit and evaluate."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _core, building, losses, optim
from ._precision import checked_precision
from .arrays import Array, any_array, real_number, shown, unknown_name
from .callbacks import Callback
from .errors import DivergenceError, DTypeError, ShapeError
from .history import History
from .inference import batch_of
from .layers.base import positive_int
from .losses import Loss
from .lowering import Builder
from .optim import LBFGS, Optimizer
from .progress import PERIOD, open_display

if TYPE_CHECKING:
    from .network import Network

METRICS = ("accuracy", "mse", "mae")


class Data(NamedTuple):
    """Samples and targets as the kernels take them."""

    x: Array
    y: Array


def fit(
    network: "Network",
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss | None,
    optimizer: str | Optimizer | LBFGS,
    epochs: int,
    batch_size: int | None,
    shuffle: bool | ArrayLike,
    validation_split: float,
    validation_data: tuple[ArrayLike, ArrayLike] | None,
    metrics: Sequence[str],
    progress: bool | None,
    callbacks: Sequence[Callback],
    precision: str | None,
) -> History:
    """See `Network.fit`."""
    epochs = positive_int(epochs, "fit: epochs")
    chosen = _chosen_loss(network, loss, "fit")
    metrics = checked_metrics(metrics)
    opt = optim.resolve(optimizer)
    if precision is not None:
        checked_precision(precision, "fit: precision")
    if precision == "bf16" and network.dtype != "float32":
        raise DTypeError(f"fit: precision 'bf16' is for float32, the network is {network.dtype}")
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"fit: callbacks must be a list of Callback objects, not {callbacks!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: {callback!r} is not a Callback")
    validation_split = real_number(validation_split, "fit: validation_split")
    data = _data(network, X, y, chosen, metrics, "")
    held = None
    if validation_data is not None:
        if validation_split:
            raise ValueError("fit: give validation_split or validation_data, not both")
        if not isinstance(validation_data, Sequence) or len(validation_data) != 2:
            raise TypeError(
                f"fit: validation_data must be a pair (X, y), not {type(validation_data).__name__}"
            )
        held = _data(network, *validation_data, chosen, metrics, "validation ")
    order = _order(shuffle, epochs, len(data.x), bool(validation_split))
    if validation_split:
        data, held = _hold_out(network, data, y, validation_split)
    rows = len(data.x)
    batch_size = rows if batch_size is None else min(positive_int(batch_size, "fit: batch_size"), rows)

    if isinstance(opt, LBFGS):
        from .full_batch import FullBatchLoop

        if batch_size < rows:
            raise ValueError(
                f"fit: batch_size is {batch_size}; LBFGS takes all {rows} samples, batch_size=None"
            )
        if order is not None:
            raise ValueError("fit: LBFGS takes all samples at once; shuffle must be True or False")
        loop: Loop = FullBatchLoop(network, chosen, metrics, opt, data, epochs, precision)
    else:
        loop = Loop(network, chosen, metrics, opt, data, batch_size, order, bool(np.any(shuffle)), precision)
    with _alone(network), contextlib.closing(loop):
        network.loss = chosen
        network.history = loop.history(held is not None)
        _run(loop, network.history, epochs, held, progress, callbacks)
    return network.history


class Loop:
    """The compiled epoch loop with its data, and the book-keeping of what it has done."""

    def __init__(
        self,
        network: "Network",
        loss: Loss,
        metrics: tuple[str, ...],
        optimizer: Optimizer,
        data: Data,
        batch_size: int,
        order: Array | None,
        shuffle: bool,
        precision: str | None,
    ) -> None:
        self.network = network
        self.names = ("loss", *metrics)
        self._optimizer = optimizer
        self._data = data
        self._order = order
        self._shuffle = shuffle
        self._metrics = metrics
        self._batch_size = batch_size
        self._precision = precision
        self._kind = loss.kind(network.output_activation())
        optimizer._run(network)  # its checks, before anything is written

    def history(self, validated: bool) -> History:
        """An empty history with the keys that will come."""
        return History(self.names + tuple(f"val_{name}" for name in self.names if validated))

    def epochs(self, done: int, count: int) -> Iterator[dict[str, float]]:
        """Train `count` epochs after `done` ones, then give their losses. What is committed is counted,
        whatever comes; after an exception the finished epochs are given first."""
        network = self.network
        failure: BaseException | None = None
        # Asked for again each time: a callback may freeze a layer or change a rate.
        trainer = network._programs.trainer(
            network, self._kind, self._metrics, self._batch_size, self._precision
        )
        run = self._optimizer._run(network)
        try:
            rows = trainer.run(
                self._data.x,
                self._data.y,
                epochs=count,
                order=None if self._order is None else self._order[done : done + count],
                shuffle=self._shuffle and self._order is None,
                key=network._key,
                step=network._step,
                rule=self._optimizer.rule,
                hyper=run.hyper,
                updates=run.steps,
                ranges=run.ranges,
            )
        except BaseException as error:
            failure, rows = error, trainer.partial
        network._step += trainer.steps_done
        run.advance(trainer.steps_done)
        for row in rows:
            yield dict(zip(self.names, row, strict=True))
        if isinstance(failure, DivergenceError):
            raise self._explained(failure, done) from None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """The end of the fit."""

    def _explained(self, error: DivergenceError, done: int) -> DivergenceError:
        """The error with its epoch counted from the start of the fit, not of the last call of the loop, and
        with the data named where they are at fault."""
        message = re.sub(r"epoch (\d+)", lambda match: f"epoch {int(match[1]) + done}", str(error), count=1)
        for name, array in self._data._asdict().items():
            if not np.isfinite(array).all():
                message = f"{message}; {name.replace('x', 'X')} itself holds NaN or infinities"
        return DivergenceError(message)

    def validate(self, held: Data) -> dict[str, float]:
        """Losses and metrics of the held-out data, called val_..."""
        row = self.network._programs.evaluator(self.network, self._kind, self._metrics).run(*held)
        return {f"val_{name}": value for name, value in zip(self.names, row, strict=True)}


def _run(
    loop: Loop,
    history: History,
    epochs: int,
    held: Data | None,
    show: bool | None,
    callbacks: Sequence[Callback],
) -> None:
    """Train, coming back to Python as seldom as what is due between epochs allows."""
    display = open_display(epochs, show)
    every_epoch = held is not None or bool(callbacks)
    count = epochs if display is None and not every_epoch else 1
    start = time.perf_counter()
    try:
        while history.epochs < epochs:
            began = time.perf_counter()
            logs: dict[str, float] = {}
            for logs in loop.epochs(history.epochs, count):
                if held is not None:
                    logs |= loop.validate(held)
                history._append(logs)
            if not logs:
                break  # the optimizer has converged
            history.seconds = time.perf_counter() - start
            if display is not None:
                display.show(history.epochs, logs)
            ends = [callback.on_epoch_end(loop.network, history.epochs, logs) for callback in callbacks]
            if any(ends):
                break
            if not every_epoch:
                fitting = int(count * PERIOD / max(time.perf_counter() - began, 1e-6))
                count = min(max(fitting, 1), epochs - history.epochs)
    finally:
        history.seconds = time.perf_counter() - start
        if display is not None:
            display.close()


def evaluate(
    network: "Network", X: ArrayLike, y: ArrayLike, *, metrics: Sequence[str] | None, loss: str | Loss | None
) -> dict[str, float]:
    """See `Network.evaluate`."""
    chosen = _chosen_loss(network, loss, "evaluate")
    if metrics is None:
        metrics = ("accuracy",) if chosen.name in losses.CLASSIFICATION else ()
    metrics = checked_metrics(metrics)
    data = _data(network, X, y, chosen, metrics, "")
    kind = chosen.kind(network.output_activation())
    row = network._programs.evaluator(network, kind, metrics).run(*data)
    return dict(zip(("loss", *metrics), row, strict=True))


def describe(network: "Network", batch_size: int, training: bool, loss: str | Loss | None) -> str:
    """What `Network.plan` prints."""
    batch_size = positive_int(batch_size, "plan: batch_size")
    builder = Builder(network, training=training, fitting=training)
    if not training:
        return _core.Predictor(builder.graph, builder.output, batch_size).describe()
    output = network.output_activation()
    suited = {"softmax": "cross_entropy", "sigmoid": "bce"}.get(output or "", "mse")
    chosen = losses.resolve(loss or network.loss or suited)
    return _core.Trainer(builder.graph, builder.output, chosen.kind(output), (), batch_size).describe()


# -- checks --------------------------------------------------------------------------------------------------


def _chosen_loss(network: "Network", loss: str | Loss | None, what: str) -> Loss:
    if loss is not None:
        return losses.resolve(loss)
    if network.loss is None:
        raise ValueError(f"{what}: give a loss; known: {', '.join(losses.NAMES)}")
    return network.loss


def checked_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Known names, each once; ValueError and TypeError otherwise."""
    if not isinstance(metrics, Sequence):
        raise TypeError(f"metrics must be a list of names ({', '.join(METRICS)}), not {metrics!r}")
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return tuple(dict.fromkeys(names))


def _data(
    network: "Network", X: ArrayLike, y: ArrayLike, loss: Loss, metrics: tuple[str, ...], which: str
) -> Data:
    x, single = batch_of(network, X, f"{which}X")
    if single:
        raise ShapeError(f"{which}X has shape {x.shape[1:]}, one sample; expected {shown(x.shape[1:])}")
    kind = loss.kind(network.output_activation())
    target = losses.target_array(kind, y, (len(x), *network.output_dims), network.dtype, f"{which}y")
    if target.ndim == 1:
        for name in metrics:
            if name != "accuracy":
                raise ValueError(
                    f"metric {name!r} compares outputs with targets of their shape, not with labels"
                )
    return Data(x, target)


def _order(shuffle: bool | ArrayLike, epochs: int, rows: int, split: bool) -> Array | None:
    """Indices (epochs, rows) as int64, or None where `shuffle` is a plain yes or no."""
    if isinstance(shuffle, bool | np.bool_):
        return None
    order = any_array(shuffle, "shuffle")
    if split:
        raise ValueError("fit: with shuffle indices give validation_data, not validation_split")
    if order.dtype.kind not in "iu":
        raise DTypeError(f"shuffle has dtype {order.dtype}; it must be True, False or integer indices")
    if order.shape != (epochs, rows):
        raise ShapeError(
            f"shuffle has shape {order.shape}; {epochs} epochs of {rows} samples take {(epochs, rows)}"
        )
    outside = (order < 0) | (order >= rows)
    if outside.any():
        raise ValueError(f"shuffle holds index {order[outside][0]}; {rows} samples have 0..{rows - 1}")
    return np.ascontiguousarray(order, dtype=np.int64)


def _hold_out(network: "Network", data: Data, y: ArrayLike, fraction: float) -> tuple[Data, Data]:
    """(training, held-out) parts, always the same for a network and a set."""
    from .datasets import stratified_split

    labels = any_array(y, "y")
    classes = labels.dtype.kind in "biu" and labels.size == len(labels)
    rng = building.generator(network, building.SPLIT_STREAM)
    train, held = stratified_split(labels.reshape(-1) if classes else data.y, fraction, rng)
    return Data(data.x[train], data.y[train]), Data(data.x[held], data.y[held])


@contextlib.contextmanager
def _alone(network: "Network") -> Iterator[None]:
    """Holds what `network` trains against a second fit; RuntimeError where another has it."""
    blocks = {id(block): block for block in (segment.placed for segment in network.trainable_segments())}
    with contextlib.ExitStack() as held:
        for block in blocks.values():
            if not block.training.acquire(blocking=False):
                raise RuntimeError("fit: another fit is training these parameters")
            held.callback(block.training.release)
        yield
