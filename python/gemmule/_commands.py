"""What the subcommands of the command line do. Each takes the parsed arguments and returns the exit
status."""

import argparse
import csv
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gemmule as gm

from . import plot
from ._tables import Preparation, Table, load_table, split_rows
from .errors import FileError, ShapeError

Array = NDArray[Any]

LOSSES = ("cross_entropy", "mse", "half_mse", "mae")
LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.05}
_MOMENTUM = 0.9  # of sgd
_HELD_OUT = 0.2
_MANY_ROWS = 10_000  # from here on 5 epochs of larger batches do what 30 of small ones do below
_LINES = 10  # of progress where there is no progress bar


class UsageError(Exception):
    """Options that do not go together, or not with the data."""


# -- train ---------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """Train, report, and write what was asked for; 130 where Ctrl-C ended it."""
    table = _table(args)
    loss = _loss(args, table)
    check_outputs(args.plot, args.out)
    preparation, training, held = _parts(args, table, classify=loss == "cross_entropy")
    net = _network(args, preparation, training)
    many = len(training[0]) >= _MANY_ROWS
    epochs = args.epochs or (5 if many else 30)
    batch_size = args.batch_size or (64 if many else 32)
    if not args.quiet:
        print(f"{args.data}: {len(training[0])} rows to train on, {len(held[0])} held out")
        print(net.summary(), flush=True)

    terminal = sys.stderr.isatty() and not args.quiet
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
            callbacks=[] if terminal or args.quiet else [_Lines(epochs)],
        )
    except KeyboardInterrupt:
        if net.history is None:  # not one step was done
            raise
        interrupted, history = True, net.history
    if interrupted:
        done = f"epoch {history.epochs} of {epochs}"
        print(f"gemmule: interrupted after {done}; the last complete step is kept", file=sys.stderr)
    seconds = max(history.seconds, 1e-9)
    speed = f"{history.epochs} epochs in {seconds:.2f} s"
    if not interrupted:
        speed += f", {epochs * len(training[0]) / seconds:,.0f} samples/s"
    print(f"held-out {_score(net, preparation, *held)} ({len(held[0])} rows); {speed}")
    net.preprocessing = preparation.to_json()
    _write_outputs(args, net, history)
    return 130 if interrupted else 0


def _loss(args: argparse.Namespace, table: Table) -> str:
    y = table.y
    if y is None:
        raise UsageError(f"{args.data} holds no targets to learn; write X and y with np.savez")
    labels = y.ndim == 1 and y.dtype.kind in "biuU"
    loss: str = args.loss or ("cross_entropy" if labels else "mse")
    if loss == "cross_entropy" and (y.ndim > 1 or len(np.unique(y)) < 2):
        raise UsageError(f"--loss cross_entropy wants y (N,) with two classes or more; y has shape {y.shape}")
    if loss != "cross_entropy" and y.dtype.kind == "U":
        raise UsageError(f"--loss {loss} wants numbers; y holds names")
    return loss


def check_outputs(picture: Path | None, *files: Path | None) -> None:
    """What would fail at the end is better said at the beginning. None stands for a file not asked for."""
    if picture is not None:
        try:
            plot.check_path(picture)
        except ValueError as error:
            raise UsageError(str(error)) from error
    for path in (*files, picture):
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"{path}: no such folder to write into")
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{path}: the folder is not yours to write into")
        if path.exists() and not path.is_file():
            raise FileError(f"{path}: {'a folder' if path.is_dir() else 'a device'}, not a file")


def _parts(
    args: argparse.Namespace, table: Table, *, classify: bool
) -> tuple[Preparation, tuple[Array, Array], tuple[Array, Array]]:
    """The preparation, (X, y) to train on and (X, y) held out, both prepared."""
    y = np.asarray(table.y)
    fraction = None
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


def _prepared(preparation: Preparation, X: Array, y: Array) -> tuple[Array, Array]:
    return preparation.inputs(X), preparation.targets(y)


def _network(args: argparse.Namespace, preparation: Preparation, training: tuple[Array, Array]) -> gm.Network:
    X, y = training
    n_out = len(preparation.classes) if preparation.classes else y.shape[1]
    layers: list[gm.Layer] = []
    width = X.shape[1]
    for hidden in args.hidden:
        layers.append(gm.Dense(width, hidden, args.activation))
        if args.dropout:
            layers.append(gm.Dropout(args.dropout))
        width = hidden
    layers.append(gm.Dense(width, n_out))
    return gm.Network(layers, rng=args.seed)


def _optimizer(args: argparse.Namespace) -> gm.optim.Optimizer:
    rate = args.lr or LEARNING_RATES[args.optimizer]
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
        plot.save_history(history, args.plot)
        print(f"wrote {args.plot}")
    if args.out is None:
        if not args.quiet:
            print("next: add --out model.safetensors to keep the network")
        return
    net.save(args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1000:,.0f} kB)")
    if not args.quiet:
        folder = ["--data-dir", args.data_dir] if args.data_dir else []
        target = shlex.join([str(args.out), args.data, *folder])
        print(f"next:\n  gemmule evaluate {target}\n  gemmule predict {target} --limit 5")


# -- evaluate, predict ---------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """Score the rows held out in training, or all."""
    table = _table(args)
    if table.y is None:
        raise UsageError(f"{args.data} holds no targets to score against")
    net, preparation = _model(args, table)
    if net.loss is None:
        raise FileError(
            f"{args.model}: the network was saved before it was trained, without a loss to score by"
        )
    X, y, which = _rows_to_score(args, table, preparation)
    score = _score(net, preparation, _inputs(net, preparation, X), preparation.targets(y))
    print(f"{score} on {len(X)} rows, {which}")
    return 0


def _rows_to_score(
    args: argparse.Namespace, table: Table, preparation: Preparation
) -> tuple[Array, Array, str]:
    y = np.asarray(table.y)
    same = preparation.fingerprint == table.fingerprint
    if args.all:
        X_test, y_test = (table.X[:0], y[:0]) if table.test is None else table.test
        return np.concatenate([table.X, X_test]), np.concatenate([y, y_test]), "all there are"
    if table.test is not None:
        return *table.test, "the data's own test rows"
    if same and preparation.fraction is not None:
        classify = preparation.classes is not None
        _, held = split_rows(y, classify=classify, fraction=preparation.fraction, seed=preparation.seed)
        return table.X[held], y[held], "held out in training"
    return table.X, y, "all there are (not the data that it was trained from)"


def _score(net: gm.Network, preparation: Preparation, X: Array, y: Array) -> str:
    """Accuracy and loss for classes; root mean squared error and R2, in the units of the data, for
    numbers."""
    if preparation.classes:
        scores = net.evaluate(X, y, metrics=["accuracy"])
        return f"accuracy {100 * scores['accuracy']:.2f} %, loss {scores['loss']:.4f}"
    if not preparation.data:  # saved from Python: its own loss says what counts
        return ", ".join(f"{name} {value:.4g}" for name, value in net.evaluate(X, y).items())
    wanted = preparation.original(y)
    error = preparation.original(net.predict(X)) - wanted
    rest, spread = np.mean(error**2), np.mean((wanted - wanted.mean(axis=0)) ** 2)
    r2 = 1 - rest / spread if spread else float("nan")
    return f"root mean squared error {math.sqrt(rest):.4g}, R2 {r2:.4f}"


def predict(args: argparse.Namespace) -> int:
    """One line per row: label or numbers, with --proba the probability of each class."""
    table = _table(args)
    net, preparation = _model(args, table)
    classes = preparation.classes
    if args.proba and not classes:
        raise UsageError("--proba: the model predicts numbers, not classes")
    X = _inputs(net, preparation, (table.X if table.test is None else table.test[0])[: args.limit])
    output = net.predict(X)
    columns: list[Any]
    if not classes:
        values = preparation.original(output)
        names, columns = [f"y{i}" for i in range(values.shape[1])], list(values.T)
    else:
        values = np.array(classes)[output.argmax(axis=1)]
        names, columns = ["label"], [values]
        if args.proba:
            values = net.predict_proba(X)
            names += [f"p({name})" for name in classes]
            columns += list(values.T)
    if args.out is not None and args.out.suffix == ".npy":
        np.save(args.out, values)
    elif args.out is not None:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            _write_csv(file, names, columns)
    else:
        _write_csv(sys.stdout, names, columns)
        return 0
    print(f"wrote {args.out} ({len(X)} rows)")
    return 0


def _write_csv(file: Any, names: Iterable[str], columns: list[Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", *names])
    for row, cells in enumerate(zip(*columns, strict=True)):
        writer.writerow([row, *(f"{cell:.6g}" if isinstance(cell, np.floating) else cell for cell in cells)])


# -- info, bench, show-config --------------------------------------------------------------------------------


def info(args: argparse.Namespace) -> int:
    """Layers, loss, preprocessing and size of a model file."""
    net = gm.load(args.model)
    print(f"{args.model}: {os.path.getsize(args.model):,} bytes")
    print(net.summary())
    print(f"loss: {net.loss.name if net.loss else 'none'}")
    if not net.preprocessing:
        print("preprocessing: none stored")
        return 0
    preparation = Preparation.from_json(net.preprocessing)
    fraction = preparation.fraction
    held = "its own test rows" if fraction is None else f"{fraction:.0%} of the rows, seed {preparation.seed}"
    print(f"trained from: {preparation.data}; held out: {held}")
    if len(preparation.scale) == 1:
        print(f"inputs: (x - {preparation.shift[0]:g}) / {preparation.scale[0]:g}")
    else:
        print(f"inputs: {len(preparation.scale)} columns, each to mean 0 and deviation 1")
    if preparation.classes:
        print(f"classes: {', '.join(map(str, preparation.classes))}")
    return 0


def bench(args: argparse.Namespace) -> int:
    """Beside the peers."""
    from .bench import command  # only where it is asked for

    run: Callable[[argparse.Namespace], int] = getattr(command, args.benchmark)
    return run(args)


def show_config(args: argparse.Namespace) -> int:
    """Instruction set, threads and build."""
    gm.show_config()
    return 0


# -- shared --------------------------------------------------------------------------------------------------


def _table(args: argparse.Namespace) -> Table:
    """The data named on the command line; the number of threads is set on the way."""
    if args.threads is not None:
        try:
            gm.set_num_threads(args.threads)
        except ValueError as error:
            raise UsageError(f"--threads: {error}") from error
    if (args.data == "mnist") != (args.data_dir is not None):
        if args.data == "mnist":
            raise UsageError("mnist needs --data-dir DIR, the folder with its four IDX files")
        raise UsageError(f"--data-dir goes with mnist, not with {args.data}")
    return load_table(args.data, args.data_dir)


def _model(args: argparse.Namespace, table: Table) -> tuple[gm.Network, Preparation]:
    """The network and how its rows are prepared, checked against one another."""
    net = gm.load(args.model)
    shape = net.output_shape()
    if len(shape) != 1:
        raise FileError(
            f"{args.model}: the network's outputs have shape {shape}; one row of numbers was expected"
        )
    if not net.preprocessing:
        labels = isinstance(net.loss, gm.losses.CrossEntropy)
        return net, Preparation.neutral(table, shape[0] if labels else None)
    preparation = Preparation.from_json(net.preprocessing)
    expected = len(preparation.classes or preparation.target_scale)
    if expected != shape[0]:
        raise FileError(f"{args.model}: preprocessing for {expected} outputs, but the network has {shape[0]}")
    return net, preparation


def _inputs(net: gm.Network, preparation: Preparation, X: Array) -> Array:
    """Prepared rows in the shape that the network takes, (N, n_in) or images."""
    shape = net.built_input_shape
    if math.prod(shape) != X.shape[1]:
        raise ShapeError(f"data: X has {X.shape[1]} columns, the network takes {shape}")
    return preparation.inputs(X).reshape(len(X), *shape)
