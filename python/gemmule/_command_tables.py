"""CSV tables on the command line: which column is learned, and whether as classes or as a number."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _csv
from ._arguments import UsageError
from ._columns import Array, Column, Columns, Numbers, Text, closest, listed, whole_numbers
from .errors import FileError
from .tables import TableEncoder

SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
MOST_CLASSES = 20  # of whole numbers: more of them are measurements
_ROWS_A_CLASS = 5  # on average, at least

RULE = f"""\
text is classified, and so are whole numbers of at
most {MOST_CLASSES} different values and on average {_ROWS_A_CLASS} rows to each; other numbers are fitted"""


class TableOptions(NamedTuple):
    """What the command line says of a table."""

    target: str | None = None
    task: str | None = None  # classify, regress
    drop: Sequence[str] = ()
    delimiter: str | None = None


class Targets(NamedTuple):
    """A table's column to learn, without the rows that lack it."""

    X: Columns
    y: Array  # integers or names of classes, or float64
    classify: bool
    notes: list[str]


def is_csv(data: str) -> bool:
    return data.lower().endswith(SUFFIXES)


def to_train_on(path: str, options: TableOptions) -> tuple[Targets, TableEncoder]:
    """The rows that have a target, and the encoder that is to learn from some of them.

    FileError for a file that is no table; UsageError for names of columns that are none, and for a target
    that cannot be learned."""
    columns = _csv.read(path, delimiter=options.delimiter)
    names = columns.by_name
    target = options.target
    if target is None:
        raise UsageError(f"{path} needs --target NAME, the column to learn; its columns are {listed(names)}")
    for option, name in [("--target", target), *(("--drop", name) for name in options.drop)]:
        if name not in names:
            raise UsageError(
                f"{option}: {path} has no column {name!r}{closest(name, names)}; its columns are "
                f"{listed(names)} (line 1 is read as their names)"
            )
    if target in options.drop:
        raise UsageError(f"--drop: {target!r} is the target")
    if len(names) == 1:
        raise FileError(f"{path}: no column beside {target!r} to learn it from")
    found = _targets(path, columns, target, _as_classes(columns.by_name[target], target, options.task))
    values = np.unique(found.y)
    if len(values) < 2:
        raise FileError(f"{path}: {target!r} is {values[0]!s} in every row; there is nothing to tell apart")
    return found, TableEncoder(drop=options.drop)


def to_score(
    path: str, encoder: TableEncoder, target: str, classes: list[Any] | None, delimiter: str | None
) -> Targets:
    """The rows of a table for a trained model."""
    kind = Text if classes is not None and isinstance(classes[0], str) else Numbers
    wanted = [*encoder.names, target]
    columns = _csv.read(path, delimiter=delimiter, wanted=wanted, kinds={**encoder.kinds, target: kind})
    return _targets(path, columns, target, classes is not None)


def to_predict(path: str, encoder: TableEncoder, delimiter: str | None) -> Columns:
    """The columns that the encoder knows."""
    return _csv.read(path, delimiter=delimiter, wanted=encoder.names, kinds=encoder.kinds)


def _as_classes(column: Column, target: str, task: str | None) -> bool:
    if isinstance(column, Text):
        if task == "regress":
            raise UsageError(f"--task regress: {target!r} holds text, such as {column.names[0]!r}")
        return True
    if task is not None:
        return task == "classify"
    values = column.values[~column.missing]
    count = len(np.unique(values))
    whole = whole_numbers(values).dtype.kind == "i"
    return whole and count <= MOST_CLASSES and count * _ROWS_A_CLASS <= len(values)


def _targets(path: str, columns: Columns, target: str, classify: bool) -> Targets:
    column = columns.by_name[target]
    there = np.flatnonzero(~column.missing)
    if not len(there):
        raise FileError(f"{path}: {target!r} has no value in any row")
    notes = []
    if absent := len(column) - len(there):
        notes.append(f"{absent:,} of {len(column):,} rows have no {target!r} and are left out")
    X, column = columns.without([target])[there], column[there]
    y = column.array().astype("U") if isinstance(column, Text) else column.values
    if classify and isinstance(column, Numbers):
        y = whole_numbers(y)
    return Targets(X, y, classify, notes)
