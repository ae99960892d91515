"""What the command line trains on, and how rows are prepared before a network sees them.

The preparation travels in the model file (`net.preprocessing`), with a fingerprint of the data and the seed
of the split: so `evaluate` finds the rows that training never saw, and `predict` prepares new rows in the
same way.
"""

import hashlib
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import datasets
from .errors import FileError, ShapeError

Array = NDArray[Any]
_CONSTANT = 1e-12  # a column whose deviation is below this share of its mean
_CHUNK = 4096  # rows prepared at a time, in float64


@dataclass(frozen=True)
class Table:
    """Rows as the files hold them: X (N, n_in), y (N,) or (N, n_out) or None, and test rows where the files
    have some."""

    X: Array
    y: Array | None
    test: tuple[Array, Array] | None = None
    full_scale: float | None = None  # of pixels: dividing by it gives 0..1

    @property
    def fingerprint(self) -> str:
        """The same for the same training rows, wherever they lie."""
        digest = hashlib.sha256(f"{self.X.shape} {self.X.dtype.str}".encode())
        digest.update(np.ascontiguousarray(self.X).data)
        if self.y is not None:
            digest.update(np.ascontiguousarray(self.y).tobytes())
        return digest.hexdigest()


def load_table(data: str, folder: str | None) -> Table:
    """`data` is digits, mnist (in `folder`), a folder of IDX files, a .npz of X and y, or a .npy of X
    alone.

    FileError where it is none of these, or holds NaN, infinities or what float32 cannot hold."""
    if data == "digits":
        X, y = datasets.digits(scale=False)
        return Table(X, y, full_scale=16.0)
    path = Path(folder) if data == "mnist" and folder is not None else Path(data)
    if data == "mnist" or path.is_dir():
        train, test = datasets.idx_folder(path)
        scale = 255.0 if train[0].dtype == np.uint8 else None
        return Table(_flat(train[0]), train[1], (_flat(test[0]), test[1]), scale)
    if path.suffix == ".npz":
        X, y = datasets.load_npz(path)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        _require_numbers(path, X=_flat(X), y=y)
        return Table(_flat(X), y, full_scale=255.0 if X.dtype == np.uint8 else None)
    if path.suffix == ".npy":
        X = datasets.load_npy(path)
        _require_numbers(path, X=_flat(X))
        return Table(_flat(X), None, full_scale=255.0 if X.dtype == np.uint8 else None)
    raise FileError(f"{data}: expected digits, mnist, a folder of IDX files, a .npz or .npy file")


def _require_numbers(path: Path, **arrays: Array) -> None:
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        unusable = ~(np.abs(array) <= np.finfo(np.float32).max)
        if unusable.any():
            at = tuple(int(i) for i in np.argwhere(unusable)[0])
            raise FileError(
                f"{path}: {name} holds {array[at]!s} at {at}; numbers in the range of float32 are due"
            )


def _flat(X: Array) -> Array:
    return X.reshape(len(X), -1)


def split_rows(y: Array, *, classify: bool, fraction: float, seed: int) -> tuple[Array, Array]:
    """(train, held) rows, stratified where `y` are labels to tell apart."""
    key = np.unique(y, return_inverse=True)[1] if classify else y.reshape(len(y), -1)
    return datasets.stratified_split(key, fraction, seed)


@dataclass(frozen=True)
class Preparation:
    """x = (X - shift) / scale, one number or one per column; labels become positions in `classes`, other
    targets (y - target_shift) / target_scale. `data`, `fingerprint`, `fraction` and `seed` tell which rows
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

    @classmethod
    def learn(
        cls, data: str, table: Table, rows: Array, *, classify: bool, fraction: float | None, seed: int
    ) -> Self:
        """From the rows trained on: pixels go to 0..1, other columns and targets to mean 0 and deviation
        1."""
        y = np.asarray(table.y)
        shift, scale = ([0.0], [table.full_scale]) if table.full_scale else _moments(table.X[rows])
        target_shift, target_scale = ([0.0], [1.0]) if classify else _moments(y[rows].reshape(len(rows), -1))
        classes = np.unique(y).tolist() if classify else None
        return cls(data, table.fingerprint, fraction, seed, shift, scale, classes, target_shift, target_scale)

    @classmethod
    def neutral(cls, table: Table, classes: int | None) -> Self:
        """For a model saved from Python without one: pixels go to 0..1, labels are 0..classes - 1."""
        names = None if classes is None else list(range(classes))
        return cls("", "", None, 0, [0.0], [table.full_scale or 1.0], names, [0.0], [1.0])

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """FileError where a model file holds something else than `to_json` makes."""
        names = [field.name for field in fields(cls)]
        if set(value) != set(names):
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
        }
        wrong = [name for name, good in valid.items() if not good]
        if wrong:
            raise FileError(f"the model's preprocessing: {', '.join(wrong)} hold what training never writes")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def inputs(self, X: Array) -> NDArray[np.float32]:
        """float32 (N, n_in). ShapeError where the columns are not those trained on."""
        if len(self.scale) not in (1, X.shape[1]):
            raise ShapeError(f"data: X has {X.shape[1]} columns, the model was trained on {len(self.scale)}")
        shift, scale = np.array(self.shift), np.array(self.scale)
        result = np.empty(X.shape, np.float32)
        for begin in range(0, len(X), _CHUNK):
            rows = slice(begin, begin + _CHUNK)
            result[rows] = (X[rows] - shift) / scale
        return result

    def targets(self, y: Array) -> Array:
        """int64 (N,) positions, or float32 (N, n_out). ShapeError for a label that training did not meet."""
        if self.classes is None:
            columns: Array = y.reshape(len(y), -1) - np.array(self.target_shift)
            return np.asarray(columns / np.array(self.target_scale), np.float32)
        classes = np.array(self.classes)
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise ShapeError(
                f"data: label {unknown.tolist()[0]!r} is none of the model's {len(classes)} classes"
            )
        return np.searchsorted(classes, y).astype(np.int64)

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
