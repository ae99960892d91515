"""`gemmule train`: from data to a network, its score on held-out rows, a model file and a picture."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TypeGuard

import numpy as np

import gemmule as gm

from . import _bytes, models, plot
from ._arguments import UsageError
from ._columns import Array, Columns
from ._command_data import Table, split_rows
from ._command_tables import TableOptions
from ._commands import check_outputs, read_table, scored
from ._preparation import Preparation
from .arrays import Shape
from .callbacks import Checkpoint, EarlyStopping
from .errors import ShapeError

CLASSIFYING = ("cross_entropy", "hinge")
LOSSES = (*CLASSIFYING, "mse", "half_mse", "mae", "huber")
LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.05}
SCHEDULES: dict[str, Callable[[float], float | gm.schedules.Schedule]] = {
    "constant": lambda rate: rate,
    "cosine": gm.schedules.Cosine,
    "one-cycle": gm.schedules.OneCycle,
}
ARCHITECTURES: dict[str, Callable[..., gm.Network]] = {
    "cnn": models.mnist_cnn,
    "lenet5": models.lenet5,
    "resnet20": models.resnet20,
}
_AS_THEY_ARE = ("resnet20",)  # without a choice of activation, or hidden layers to drop units of
_HIDDEN = [256, 128]  # of mlp
_MOMENTUM = 0.9  # of sgd
_HELD_OUT = 0.2
_MANY_ROWS = 10_000  # from here on 5 epochs of larger batches do what 30 of small ones do below
_UPDATES = 1000  # at least, of few rows: 150 of them are 5 batches an epoch
_LINES = 10  # of progress where there is no progress bar


def train(args: argparse.Namespace) -> int:
    """Train, report, and write what was asked for; 130 where Ctrl-C ended it."""
    table = read_table(args, TableOptions(args.target, _task(args), args.drop, args.delimiter))
    loss = _loss(args, table)
    check_outputs(args.plot, args.out, args.checkpoint)
    _check_architecture(args, table)
    augment = _augment(args, table.image)
    preparation, training, held = _parts(args, table, classify=loss in CLASSIFYING)
    net = _network(args, preparation, training, table.image, flat=augment is None)
    training, held = _shaped(net, training), _shaped(net, held)
    rows = len(training[0])
    batch_size = args.batch_size or (64 if rows >= _MANY_ROWS else 32)
    epochs = args.epochs or (5 if rows >= _MANY_ROWS else max(30, math.ceil(_UPDATES * batch_size / rows)))
    if not args.quiet:
        print(f"{args.data}: {rows} rows to train on, {len(held[0])} held out")
        _report(args, table, preparation)
        print(net.summary(), flush=True)

    terminal = sys.stderr.isatty() and not args.quiet
    callbacks: list[gm.Callback] = [] if terminal or args.quiet else [_Lines(epochs)]
    stopping = None
    if args.early_stopping is not None:
        stopping = EarlyStopping("val_loss", patience=args.early_stopping, restore_best=True)
        callbacks.append(stopping)
    if args.checkpoint is not None:
        callbacks.append(Checkpoint(args.checkpoint))
    interrupted = False
    try:
        history = net.fit(
            *training,
            loss=loss,
            optimizer=_optimizer(args),
            epochs=epochs,
            batch_size=batch_size,
            validation_data=held,
            metrics=["accuracy"] if preparation.classes else [],
            progress=terminal,
            callbacks=callbacks,
            precision=args.precision,
            resume=args.resume,
            scale=1 / preparation.scale[0] if _bytes.is_bytes(training[0]) else None,
            augment=augment,
        )
    except KeyboardInterrupt:
        if net.history is None:  # not one step was done
            raise
        interrupted, history = True, net.history
    if interrupted:
        done = f"epoch {history.epochs} of {epochs}"
        print(f"gemmule: interrupted after {done}; the last complete step is kept", file=sys.stderr)
    if stopping is not None and stopping.stopped_epoch is not None and not args.quiet:
        last, best = stopping.stopped_epoch, stopping.best_epoch
        print(f"stopped after epoch {last}; the weights are those of epoch {best}")
    seconds = max(history.seconds, 1e-9)
    speed = f"{history.epochs} epochs in {seconds:.2f} s"
    if not interrupted:
        speed += f", {history.epochs * rows / seconds:,.0f} samples/s"
    print(f"held-out {scored(net, preparation, *held)} ({len(held[0])} rows); {speed}")
    net.preprocessing = preparation.to_json()
    _write_outputs(args, net, history)
    return 130 if interrupted else 0


def _task(args: argparse.Namespace) -> str | None:
    """What --task and --loss say together."""
    meant = None if args.loss is None else "classify" if args.loss in CLASSIFYING else "regress"
    if args.task is not None and meant not in (None, args.task):
        raise UsageError(f"--task {args.task} does not go with --loss {args.loss}")
    task: str | None = args.task or meant
    return task if args.target is not None else args.task


def _report(args: argparse.Namespace, table: Table, preparation: Preparation) -> None:
    """What became of the columns of a table."""
    encoder, classes = preparation.encoder, preparation.classes
    if encoder is None:
        return
    kind = f"{len(classes)} classes" if classes else "a number"
    if _task(args) is None and not (classes and isinstance(classes[0], str)):
        kind += f" (--task {'regress' if classes else 'classify'} takes it otherwise)"
    print(f"target {table.target!r}: {kind}")
    print(f"columns ({len(encoder.columns)}, as {encoder.width} inputs):\n{encoder.describe()}")
    for note in table.notes:
        print(f"note: {note}")


def _loss(args: argparse.Namespace, table: Table) -> str:
    y = table.y
    if y is None:
        raise UsageError(f"{args.data} holds no targets to learn; write X and y with np.savez")
    labels = table.classify if table.classify is not None else y.ndim == 1 and y.dtype.kind in "biuU"
    loss: str = args.loss or ("cross_entropy" if labels else "mse")
    if loss in CLASSIFYING and (y.ndim > 1 or len(np.unique(y)) < 2):
        raise UsageError(f"--loss {loss} wants y (N,) with two classes or more; y has shape {y.shape}")
    if loss not in CLASSIFYING and y.dtype.kind == "U":
        raise UsageError(f"--loss {loss} wants numbers; y holds names")
    return loss


def _parts(
    args: argparse.Namespace, table: Table, *, classify: bool
) -> tuple[Preparation, tuple[Array, Array], tuple[Array, Array]]:
    """The preparation, (X, y) to train on and (X, y) held out, both prepared."""
    y = np.asarray(table.y)
    fraction = None
    held: tuple[Array | Columns, Array]
    if table.test is None:
        fraction = args.validation or _HELD_OUT
        rows, held_rows = split_rows(y, classify=classify, fraction=fraction, seed=args.seed)
        held = table.X[held_rows], y[held_rows]
    elif args.validation is None:
        rows, held = np.arange(len(y)), table.test
    else:
        raise UsageError(f"--validation: {args.data} has test rows of its own, which are held out")
    preparation = Preparation.learn(
        args.data, table, rows, classify=classify, fraction=fraction, seed=args.seed
    )
    return preparation, _prepared(preparation, table.X[rows], y[rows]), _prepared(preparation, *held)


def _prepared(preparation: Preparation, X: Array | Columns, y: Array) -> tuple[Array, Array]:
    if _stays_bytes(X, preparation):
        return X, preparation.targets(y)
    return preparation.inputs(X), preparation.targets(y)


def _stays_bytes(X: Array | Columns, preparation: Preparation) -> TypeGuard[Array]:
    """Pixels that one factor prepares, which `fit` applies on the way: a quarter of the memory. An epoch of
    MNIST takes 1.00 times as long in batches of 64, 0.98 in batches of 256."""
    return _bytes.is_bytes(X) and preparation.shift == [0.0] and len(preparation.scale) == 1


def _check_architecture(args: argparse.Namespace, table: Table) -> None:
    """UsageError for images where there are none, and for options of another architecture."""
    if args.arch == "mlp":
        return
    if table.image is None:
        raise UsageError(f"--arch {args.arch} is for images; {args.data} holds rows of numbers")
    if args.hidden is not None:
        raise UsageError(f"--hidden goes with --arch mlp; the layers of {args.arch} are what they are")
    for name in ("activation", "dropout") if args.arch in _AS_THEY_ARE else ():
        if getattr(args, name):
            raise UsageError(f"--{name} does not go with --arch {args.arch}, whose layers are what they are")


def _augment(args: argparse.Namespace, image: Shape | None) -> gm.Augment | None:
    """What is to be done to images; UsageError where there are none, or smaller ones than it takes."""
    given = [name for name in ("flip", "crop", "shift") if getattr(args, name)]
    if not given:
        return None
    if image is None:
        raise UsageError(f"--{given[0]} is for images; {args.data} holds rows of numbers")
    if args.crop is not None and args.crop >= min(image[:2]):
        raise UsageError(
            f"--crop {args.crop} would leave nothing of images of {image[0]} x {image[1]} pixels"
        )
    return gm.Augment(flip=args.flip, crop=args.crop or 0, shift=args.shift or 0.0)


def _network(
    args: argparse.Namespace,
    preparation: Preparation,
    training: tuple[Array, Array],
    image: Shape | None,
    *,
    flat: bool,
) -> gm.Network:
    """flat: rows are as good as images, where the architecture leaves the choice."""
    X, y = training
    n_out = len(preparation.classes) if preparation.classes else y.shape[1]
    if args.arch != "mlp":
        make = ARCHITECTURES[args.arch]
        options = {} if args.activation is None else {"activation": args.activation}
        if args.arch not in _AS_THEY_ARE:
            options["dropout"] = args.dropout
        try:
            return make(n_out, input_shape=image, rng=args.seed, **options)
        except ShapeError as error:
            raise UsageError(f"--arch {args.arch} does not take images of shape {image}: {error}") from error
    layers: list[gm.Layer] = [] if flat else [gm.Flatten()]
    width = X.shape[1]
    for hidden in _HIDDEN if args.hidden is None else args.hidden:
        layers.append(gm.Dense(width, hidden, args.activation or "relu"))
        if args.dropout:
            layers.append(gm.Dropout(args.dropout))
        width = hidden
    layers.append(gm.Dense(width, n_out))
    return gm.Network(layers, input_shape=None if flat else image, rng=args.seed)


def _shaped(net: gm.Network, part: tuple[Array, Array]) -> tuple[Array, Array]:
    """Rows as the network takes them."""
    X, y = part
    return X.reshape(len(X), *net.built_input_shape), y


def _optimizer(args: argparse.Namespace) -> gm.optim.Optimizer:
    rate = SCHEDULES[args.schedule](args.lr or LEARNING_RATES[args.optimizer])
    if args.optimizer == "sgd":
        return gm.SGD(rate, momentum=_MOMENTUM)
    return gm.AdamW(rate) if args.optimizer == "adamw" else gm.Adam(rate)


class _Lines(gm.Callback):
    """Progress where there is no terminal: some ten lines, at even distances."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._every = math.ceil(epochs / _LINES)

    def on_epoch_end(self, network: gm.Network, epoch: int, logs: Mapping[str, float]) -> None:
        if epoch % self._every == 0 or epoch == self._epochs:
            values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            print(f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}  {values}", flush=True)


def _write_outputs(args: argparse.Namespace, net: gm.Network, history: gm.History) -> None:
    if args.plot is not None:
        first = net[0]
        plot.save_history(history, args.plot, first.weight if isinstance(first, gm.Conv2d) else None)
        print(f"wrote {args.plot}")
    if args.out is None:
        if not args.quiet:
            print("next: add --out model.safetensors to keep the network")
        return
    net.save(args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1000:,.0f} kB)")
    if not args.quiet:
        folder = ["--data-dir", args.data_dir] if args.data_dir else []
        delimiter = ["--delimiter", args.delimiter] if args.delimiter else []
        target = shlex.join([str(args.out), args.data, *folder, *delimiter])
        print(f"next:\n  gemmule evaluate {target}\n  gemmule predict {target} --limit 5")
