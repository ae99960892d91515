"""How rows are prepared before a network sees them, on the command line.

The preparation travels in the model file (`net.preprocessing`), with a fingerprint of the data and the seed
of the split: so `evaluate` finds the rows that training never saw, and `predict` prepares new rows in the
same way.
"""

import sys
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isfinite
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._bytes import KEY
from ._columns import Array, Columns, listed
from ._command_data import Table
from .errors import FileError, ShapeError
from .tables import TableEncoder, positions

_CONSTANT = 1e-12  # a column whose deviation is below this share of its mean
_CHUNK = 4096  # rows prepared at a time, in float64
_OF_TABLES = {"encoder": "table", "target": "target"}  # fields by their keys, left out where there is none


@dataclass(frozen=True)
class Preparation:
    """x = (X - shift) / scale, one number or one per column; labels become positions in `classes`, other
    targets (y - target_shift) / target_scale. `encoder` prepares the columns of a table instead, of which
    `target` was the one learned. `data`, `fingerprint`, `fraction` and `seed` tell which rows
    were held out: those of `split_rows`, or the files' own test rows where `fraction` is None."""

    data: str
    fingerprint: str
    fraction: float | None
    seed: int
    shift: list[float]
    scale: list[float]
    classes: list[Any] | None
    target_shift: list[float]
    target_scale: list[float]
    encoder: TableEncoder | None = None
    target: str | None = None

    @classmethod
    def learn(
        cls, data: str, table: Table, rows: Array, *, classify: bool, fraction: float | None, seed: int
    ) -> Self:
        """From the rows trained on: pixels go to 0..1, other columns and targets to mean 0 and deviation
        1."""
        y, X = np.asarray(table.y), table.X[rows]
        shift, scale = [0.0], [table.full_scale or 1.0]
        if isinstance(X, Columns):
            assert table.encoder is not None
            table.encoder.fit(X)
        elif not table.full_scale:
            shift, scale = _moments(X)
        target_shift, target_scale = ([0.0], [1.0]) if classify else _moments(y[rows].reshape(len(rows), -1))
        classes = np.unique(y).tolist() if classify else None
        return cls(
            data,
            table.fingerprint,
            fraction,
            seed,
            shift,
            scale,
            classes,
            target_shift,
            target_scale,
            table.encoder,
            table.target,
        )

    @classmethod
    def neutral(cls, full_scale: float | None, classes: int | None) -> Self:
        """For a model saved from Python without one: pixels go to 0..1, labels are 0..classes - 1."""
        names = None if classes is None else list(range(classes))
        return cls("", "", None, 0, [0.0], [full_scale or 1.0], names, [0.0], [1.0])

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """FileError where a model file holds something else than `to_json` makes."""
        if "fingerprint" not in value and set(value) <= {"table", "classes", "target", KEY}:  # of `net.fit`
            value = cls.neutral(None, None).to_json() | {k: v for k, v in value.items() if k != KEY}
        names = [field.name for field in fields(cls) if field.name not in _OF_TABLES]
        if not set(names) <= set(value) <= {*names, *_OF_TABLES.values()}:
            raise FileError(f"the model's preprocessing has {', '.join(value)}; expected {', '.join(names)}")
        classes, fraction = value["classes"], value["fraction"]
        valid = {
            "data": isinstance(value["data"], str),
            "fingerprint": isinstance(value["fingerprint"], str),
            "fraction": fraction is None or (isinstance(fraction, float) and 0 < fraction < 1),
            "seed": isinstance(value["seed"], int) and value["seed"] >= 0,
            "shift": _are_numbers(value["shift"]),
            "scale": _are_numbers(value["scale"]) and all(value["scale"]),
            "classes": classes is None or _are_classes(classes),
            "target_shift": _are_numbers(value["target_shift"]),
            "target_scale": _are_numbers(value["target_scale"]) and all(value["target_scale"]),
            "target": isinstance(value.get("target"), str | None),
        }
        wrong = [name for name, good in valid.items() if not good]
        if wrong:
            raise FileError(f"the model's preprocessing: {', '.join(wrong)} hold what training never writes")
        table = value.get("table")
        encoder = None if table is None else TableEncoder.from_json(table)
        return cls(**{name: value[name] for name in names}, encoder=encoder, target=value.get("target"))

    def to_json(self) -> dict[str, Any]:
        """Without a table, as earlier versions wrote and read it."""
        value = {name: item for name, item in vars(self).items() if name not in _OF_TABLES}
        if self.encoder is not None:
            value |= {"table": self.encoder.to_json(), "target": self.target}
        return value

    def inputs(self, X: Array | Columns) -> NDArray[np.float32]:
        """float32 (N, n_in). ShapeError where the columns are not those trained on.

        What rows of a table hold that training did not meet is told on standard error."""
        if isinstance(X, Columns):
            return self._encoded(X)
        if self.encoder is not None:
            raise FileError(f"data: the model takes a table with the columns {listed(self.encoder.names)}")
        if len(self.scale) not in (1, X.shape[1]):
            raise ShapeError(f"data: X has {X.shape[1]} columns, the model was trained on {len(self.scale)}")
        shift, scale = np.array(self.shift), np.array(self.scale)
        result = np.empty(X.shape, np.float32)
        for begin in range(0, len(X), _CHUNK):
            rows = slice(begin, begin + _CHUNK)
            result[rows] = (X[rows] - shift) / scale
        return result

    def _encoded(self, X: Columns) -> NDArray[np.float32]:
        assert self.encoder is not None
        try:
            inputs, notes = self.encoder.encode(X, "float32")
        except ValueError as error:
            raise FileError(str(error)) from error
        for note in notes:
            print(f"gemmule: {note}", file=sys.stderr)
        return inputs

    def targets(self, y: Array) -> Array:
        """int64 (N,) positions, or float32 (N, n_out). ShapeError for a label that training did not meet."""
        if self.classes is None:
            columns: Array = y.reshape(len(y), -1) - np.array(self.target_shift)
            return np.asarray(columns / np.array(self.target_scale), np.float32)
        return positions(self.classes, y, "data")

    def original(self, targets: Array) -> Array:
        """The inverse of `targets` for numbers."""
        return np.asarray(targets * np.array(self.target_scale) + np.array(self.target_shift))


def _moments(columns: Array) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column; 1 for the deviation of a constant one."""
    mean, std = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    return mean.tolist(), np.where(std > _CONSTANT * np.abs(mean), std, 1.0).tolist()


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(x) is float and isfinite(x) for x in value)


def _are_classes(value: Any) -> bool:
    """Of one type, in strictly rising order."""
    if not isinstance(value, list) or not value or type(value[0]) not in (bool, int, float, str):
        return False
    return all(type(x) is type(value[0]) for x in value) and all(a < b for a, b in pairwise(value))
