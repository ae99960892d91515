"""What the subcommands of the command line do. Each takes the parsed arguments and returns the exit
status."""

import argparse
import csv
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gemmule as gm

from . import _bytes, plot
from ._arguments import UsageError as UsageError
from ._columns import Array, Columns
from ._command_data import Table, load_table, split_rows
from ._command_tables import TableOptions
from ._layout import leaving, outside
from ._preparation import Preparation
from .errors import FileError, ShapeError

_OF_LABELS = (gm.losses.CrossEntropy, gm.losses.Hinge)


# -- evaluate, predict ---------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """Score the rows held out in training, or all."""
    net, preparation, table = _opened(args, scored=True)
    if table.y is None:
        raise UsageError(f"{args.data} holds no targets to score against")
    if net.loss is None:
        raise FileError(
            f"{args.model}: the network was saved before it was trained, without a loss to score by"
        )
    X, y, which = _rows_to_score(args, table, preparation)
    score = scored(net, preparation, _inputs(net, preparation, X, table), preparation.targets(y))
    print(f"{score} on {len(X)} rows, {which}")
    return 0


def _rows_to_score(
    args: argparse.Namespace, table: Table, preparation: Preparation
) -> tuple[Array | Columns, Array, str]:
    y = np.asarray(table.y)
    same = preparation.fingerprint == table.fingerprint
    if args.all and table.test is not None:
        X_test, y_test = table.test
        return np.concatenate([table.X, X_test]), np.concatenate([y, y_test]), "all there are"
    if args.all:
        return table.X, y, "all there are"
    if table.test is not None:
        return *table.test, "the data's own test rows"
    if same and preparation.fraction is not None:
        classify = preparation.classes is not None
        _, held = split_rows(y, classify=classify, fraction=preparation.fraction, seed=preparation.seed)
        return table.X[held], y[held], "held out in training"
    return table.X, y, "all there are (not the data that it was trained from)"


def scored(net: gm.Network, preparation: Preparation, X: Array, y: Array) -> str:
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
    net, preparation, table = _opened(args, scored=False)
    classes = preparation.classes
    if args.proba and not classes:
        raise UsageError("--proba: the model predicts numbers, not classes")
    if args.proba and isinstance(net.loss, gm.losses.Hinge):
        raise UsageError("--proba: the model was trained with hinge, which gives no probabilities")
    X = _inputs(net, preparation, (table.X if table.test is None else table.test[0])[: args.limit], table)
    output = net.predict(X)
    columns: list[Any]
    if not classes:
        values = preparation.original(output)
        names, columns = [f"y{i}" for i in range(values.shape[1])], list(values.T)
        names = [preparation.target] if preparation.target and len(names) == 1 else names
    else:
        values = np.array(classes)[output.argmax(axis=1)]
        names, columns = [preparation.target or "label"], [values]
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
    if preparation.data:
        print(f"trained from: {preparation.data}; held out: {held}")
    if preparation.target:
        print(f"target: {preparation.target}")
    encoder = preparation.encoder
    if encoder is not None:
        print(f"columns ({len(encoder.columns)}, as {encoder.width} inputs):\n{encoder.describe()}")
    elif len(preparation.scale) == 1:
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


def read_table(args: argparse.Namespace, options: TableOptions, model: Preparation | None = None) -> Table:
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
    return load_table(args.data, args.data_dir, options, model)


def _opened(args: argparse.Namespace, *, scored: bool) -> tuple[gm.Network, Preparation, Table]:
    """The network, how its rows are prepared, checked against one another, and the rows, with targets where
    they are to be scored."""
    net = gm.load(args.model)
    shape = net.output_shape()
    if len(shape) != 1:
        raise FileError(
            f"{args.model}: the network's outputs have shape {shape}; one row of numbers was expected"
        )
    n_out = shape[0] if shape[0] > 1 and isinstance(net.loss, _OF_LABELS) else None
    preparation = Preparation.from_json(net.preprocessing) if net.preprocessing else None
    if preparation is not None and not preparation.data:  # of `net.fit`, which keeps names of text alone
        classes = preparation.classes or Preparation.neutral(None, n_out).classes
        preparation = replace(preparation, classes=classes, target_scale=[1.0] * shape[0])
    if preparation is not None:
        expected = len(preparation.classes or preparation.target_scale)
        if expected != shape[0]:
            raise FileError(
                f"{args.model}: preprocessing for {expected} outputs, but the network has {shape[0]}"
            )
    target = None
    if scored:
        target = args.target or (preparation.target if preparation else None)
        if target is None and preparation is not None and preparation.encoder is not None:
            raise UsageError(
                f"--target: {args.model} does not say which column of {args.data} to score against"
            )
    options = TableOptions(target, delimiter=args.delimiter)
    table = read_table(args, options, preparation or Preparation.neutral(None, n_out))
    for note in table.notes:
        print(f"gemmule: {note}", file=sys.stderr)
    if preparation is not None and _bytes.KEY in net.preprocessing and _bytes.is_bytes(table.X):
        try:
            preparation = replace(preparation, scale=[1 / _bytes.scale_of(net)])
        except (TypeError, ValueError) as error:
            raise FileError(f"{args.model}: {error}") from error
    return net, preparation or Preparation.neutral(table.full_scale, n_out), table


def _inputs(net: gm.Network, preparation: Preparation, X: Array | Columns, table: Table) -> Array:
    """Prepared rows in the shape that the network takes, (N, n_in) or images."""
    inside = net.built_input_shape
    shape = outside(net, inside)
    rows = preparation.inputs(X)
    if math.prod(inside) != rows.shape[1]:
        raise ShapeError(f"data: X has {rows.shape[1]} columns, the network takes {shape}")
    if table.image == shape:
        return rows.reshape(len(rows), *shape)
    return leaving(net, rows.reshape(len(rows), *inside))
