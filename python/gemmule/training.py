"""fit and evaluate."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _bytes, _checkpoint, _core, _layout, _stream, building, losses, optim
from ._blocks import Source
from ._loop import Data, Loop, Settings, run, scores
from ._precision import checked_precision
from ._targets import target_array
from ._weights import ClassWeight, OfClasses, of_order, of_samples, require_some
from .arrays import Array, any_array, is_table, real_number, shown
from .callbacks import Callback
from .errors import DTypeError, ShapeError
from .history import History
from .inference import batch_of
from .layers.base import positive_int
from .losses import Loss
from .lowering import Builder
from .metrics import Metric, MetricLike
from .metrics import resolve as resolve_metrics
from .optim import LBFGS, Optimizer
from .programs import CHUNK

if TYPE_CHECKING:
    from os import PathLike

    from .augment import Augment
    from .network import Network


def fit(
    network: "Network",
    X: Any,
    y: Any,
    *,
    loss: str | Loss | None,
    optimizer: str | Optimizer | LBFGS,
    epochs: int,
    batch_size: int | None,
    accumulate: int,
    shuffle: bool | str | ArrayLike,
    validation_split: float,
    validation_data: Any,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    metrics: Sequence[MetricLike],
    progress: bool | None,
    callbacks: Sequence[Callback],
    precision: str | None,
    resume: "str | PathLike[str] | None",
    scale: float | None,
    steps_per_epoch: int | None,
    augment: "Augment | None",
) -> History:
    """See `Network.fit`."""
    epochs = positive_int(epochs, "fit: epochs")
    accumulate = positive_int(accumulate, "fit: accumulate")
    chosen = _chosen_loss(network, loss, "fit")
    measured = resolve_metrics(metrics)
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
    if augment is not None:
        _require_augment(augment)
    saved = None if resume is None else _checkpoint.read(resume)
    validation_split = real_number(validation_split, "fit: validation_split")
    held_pair, held_weight = _parted(validation_data)
    preprocessing, names = network.preprocessing, None
    if is_table(X):
        from . import tables

        preprocessing, X, y, held_pair = tables.for_fit(network, X, y, held_pair)
        names = preprocessing.get("classes")
    source = _stream.for_fit(
        network,
        X,
        y,
        loss=chosen,
        metrics=measured,
        batch_size=batch_size,
        accumulate=accumulate,
        shuffle=shuffle,
        steps_per_epoch=steps_per_epoch,
        validation_split=validation_split,
        weighted=sample_weight is not None or class_weight is not None,
    )
    data: Data | Source = source or _data(network, X, y, chosen, measured, "")
    if isinstance(data, Data):
        data = data._replace(weights=of_samples(sample_weight, len(data.x), "fit: sample_weight"))
    if scale is not None:
        dtype = data.x.dtype if isinstance(data, Data) else data.checks.dtype
        if dtype != "uint8":
            raise DTypeError(f"fit: scale is for X of uint8, X has dtype {dtype}")
        preprocessing = {**preprocessing, _bytes.KEY: _bytes.checked_scale(scale, "fit: scale")}
    held: Data | Source | None = None
    if held_pair is not None:
        if validation_split:
            raise ValueError("fit: give validation_split or validation_data, not both")
        held = _scored(network, held_pair[0], held_pair[1], chosen, measured, held_weight, "validation ")

    shuffled = bool(np.any(shuffle))
    settings = Settings(chosen, measured, opt, epochs, 1, accumulate, None, shuffled, precision, augment)
    loop: Loop
    if isinstance(data, Data):
        order = _order(shuffle, epochs, len(data.x), bool(validation_split))
        if validation_split:
            data, held = _hold_out(network, data, y, validation_split)
        if class_weight is not None:
            kind, outputs = chosen.kind(network.output_activation()), math.prod(network.output_dims)
            of_classes = OfClasses(class_weight, data.y, data.weights, kind, outputs, names)
            data = data._replace(weights=of_classes.times(data.weights, data.y, ""))
            if isinstance(held, Data):
                held = held._replace(weights=of_classes.times(held.weights, held.y, "validation "))
            elif held is not None:
                raise ValueError("fit: class_weight weighs validation_data too, which must be arrays then")
        of_order(data.weights, order)
        rows = len(data.x)
        batch_size = rows if batch_size is None else min(positive_int(batch_size, "fit: batch_size"), rows)
        settings = settings._replace(batch_size=batch_size, order=order)
        if isinstance(opt, LBFGS):
            from .full_batch import FullBatchLoop

            loop = FullBatchLoop(network, settings, data, held is not None, callbacks)
        else:
            loop = Loop(network, settings, data, held is not None)
    else:
        settings = settings._replace(batch_size=data.batch_size)
        loop = _stream.StreamLoop(network, settings, data, held is not None, callbacks)
    if saved is not None:
        _checkpoint.require_same(saved, loop, callbacks)
    with _alone(network), contextlib.closing(loop):
        network.loss, network.preprocessing = chosen, preprocessing
        network.history = loop.history
        for callback in callbacks:
            callback.on_train_begin(network, opt)
        ended = saved is not None and _checkpoint.apply(saved, loop, callbacks)
        run(loop, held, progress, callbacks, ended=ended)
    return loop.history


def evaluate(
    network: "Network",
    X: Any,
    y: Any,
    *,
    metrics: Sequence[MetricLike] | None,
    loss: str | Loss | None,
    sample_weight: ArrayLike | None,
) -> dict[str, float]:
    """See `Network.evaluate`."""
    chosen = _chosen_loss(network, loss, "evaluate")
    if metrics is None:
        metrics = ("accuracy",) if chosen.name in losses.CLASSIFICATION else ()
    measured = resolve_metrics(metrics)
    if is_table(X):
        from . import tables

        X, y = tables.pair_of(network, X, y)
    data = _scored(network, X, y, chosen, measured, sample_weight, "")
    return scores(network, chosen, measured, data)


def describe(network: "Network", batch_size: int, training: bool, loss: str | Loss | None) -> str:
    """What `Network.plan` prints."""
    batch_size = positive_int(batch_size, "plan: batch_size")
    builder = Builder(network, training=training, fitting=training)
    if not training:
        return _core.Predictor(builder.graph, builder.output, batch_size).describe()
    output = network.output_activation()
    suited = {"softmax": "cross_entropy", "sigmoid": "bce"}.get(output or "", "mse")
    chosen = losses.resolve(loss or network.loss or suited)
    lowered = chosen.lower(builder.graph, builder.output, output)
    return _core.Trainer(builder.graph, builder.output, *lowered, (), batch_size).describe()


# -- checks --------------------------------------------------------------------------------------------------


def _chosen_loss(network: "Network", loss: str | Loss | None, what: str) -> Loss:
    if loss is not None:
        return losses.resolve(loss)
    if network.loss is None:
        raise ValueError(f"{what}: give a loss; known: {', '.join(losses.NAMES)}")
    return network.loss


def _require_augment(augment: Any) -> None:
    from .augment import Augment  # only where it is asked for

    if not isinstance(augment, Augment):
        raise TypeError(f"fit: augment must be a gemmule.Augment, not {augment!r}")


def _data(
    network: "Network", X: ArrayLike, y: ArrayLike, loss: Loss, metrics: tuple[Metric, ...], which: str
) -> Data:
    x, single = batch_of(network, X, f"{which}X", keep_bytes=True)
    if single:
        raise ShapeError(f"{which}X has shape {x.shape[1:]}, one sample; expected {shown(x.shape[1:])}")
    kind = loss.kind(network.output_activation())
    y = _layout.batch_entering(network, y, f"{which}y")
    target = target_array(kind, y, (len(x), *network.output_dims), network.dtype, f"{which}y")
    for metric in metrics:
        metric.check(kind, math.prod(network.output_dims), target.ndim == 1)
    return Data(x, target)


def _parted(given: Any) -> tuple[Any, ArrayLike | None]:
    """((X, y), weights) of what fit was given as validation_data, y None for batches; TypeError for anything
    but those, a pair or three."""
    if given is None:
        return None, None
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) in (2, 3):
        return tuple(given[:2]), given[2] if len(given) == 3 else None
    if callable(given) or (isinstance(given, Iterable) and not isinstance(given, Sequence | np.ndarray)):
        return (given, None), None
    raise TypeError(
        "fit: validation_data must be a pair (X, y) or (X, y, sample_weight), or batches of (X, y), not "
        f"{type(given).__name__}"
    )


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


def _scored(
    network: "Network",
    X: Any,
    y: Any,
    loss: Loss,
    metrics: tuple[Metric, ...],
    sample_weight: ArrayLike | None,
    which: str,
) -> Data | Source:
    """What is scored and not trained on."""
    source = _stream.source_of(network, X, y, loss, metrics, batch_size=CHUNK, which=which)
    if source is not None:
        if sample_weight is not None:
            raise ValueError(f"{which}sample_weight is for arrays in memory")
        return source
    data = _data(network, X, y, loss, metrics, which)
    what = f"{which or 'evaluate: '}sample_weight"
    return data._replace(weights=of_samples(sample_weight, len(data.x), what))


def _hold_out(network: "Network", data: Data, y: Any, fraction: float) -> tuple[Data, Data]:
    """(training, held-out) parts, always the same for a network and a set."""
    from .datasets import stratified_split

    labels = any_array(y, "y")
    classes = labels.dtype.kind in "biu" and labels.size == len(labels)
    rng = building.generator(network, building.SPLIT_STREAM)
    train, held = stratified_split(labels.reshape(-1) if classes else data.y, fraction, rng)

    def part(rows: Array, which: str) -> Data:
        weights = None if data.weights is None else data.weights.part(rows)
        if weights is not None:
            require_some(weights.loss, f"fit: sample_weight of the {which} samples")
        return Data(data.x[rows], data.y[rows], weights)

    return part(train, "remaining"), part(held, "held-out")


@contextlib.contextmanager
def _alone(network: "Network") -> Iterator[None]:
    """Holds what `network` trains against a second fit; RuntimeError where another has it."""
    blocks = {
        id(block): block
        for block in (segment.placed for _, segment, on in network.segments() if on or segment.is_state)
    }
    with contextlib.ExitStack() as held:
        for block in blocks.values():
            if not block.training.acquire(blocking=False):
                raise RuntimeError("fit: another fit is training these parameters")
            held.callback(block.training.release)
        yield
