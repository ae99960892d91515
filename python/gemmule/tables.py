"""Tables: data frames, dicts of columns, structured arrays and CSV files as inputs of a network.

    encoder = gm.tables.TableEncoder().fit(frame)      # learns means and categories
    X = encoder.transform(frame)                       # float32 (N, encoder.width)

`net.fit` does this by itself for tables with text, and keeps what it learned in `net.preprocessing`:

    "table"     `TableEncoder.to_json`
    "classes"   the names of the outputs, where the targets were text
    "target"    the name of the column that the targets were, where they had one
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from . import _csv, _encoding
from ._columns import Array, Columns, Numbers, Text, closest, column_of, columns_of, whole_numbers
from .arrays import as_array, float_dtype, is_table
from .errors import DTypeError, FileError, ShapeError

if TYPE_CHECKING:
    from .network import Network

MAX_CATEGORIES = 256  # of a text column: more are as wide as most networks, and too rare to learn from


class TableWarning(UserWarning):
    """Rows hold what the encoder has not learned: other categories, a first missing value."""


def read_csv(path: str | os.PathLike[str], *, delimiter: str | None = None) -> dict[str, Array]:
    """The columns of a CSV file with a header: float64 with NaN where every cell is a number or missing,
    else str with None (object).

    Missing are empty cells, NA, NaN, null and ?, in any case. The delimiter is found among comma, semicolon
    and tab where none is given. UTF-8, with or without a byte-order mark. FileError, naming the line, for
    rows of other lengths than the header's, broken quotes and what is no table."""
    columns = _csv.read(path, delimiter=delimiter).by_name
    return {
        name: column.array() if isinstance(column, Text) else column.values
        for name, column in columns.items()
    }


class TableEncoder:
    """Columns of numbers and text as inputs of a network, float32 (N, width).

    Numbers: (x - mean) / deviation over the rows of `fit`, 0 where x is missing; one more input, 1 where x is
        missing, if any was in `fit`.
    Text: one input per category of the rows of `fit`, 1 for the row's own; missing cells have a category of
        their own if there were any in `fit`. Other categories give zeros.

    Columns that cannot tell rows apart are dropped: those without a value, with one value in all rows, text
    with as many categories as rows (an id), and an unnamed one that counts the rows. `dropped` says why.

    drop: names of columns to leave out. max_categories: of a text column the commonest are kept, the others
        give zeros.

    A table is a data frame (pandas, polars, Arrow), a dict of columns, a structured array, or the path of a
    CSV file. `transform` finds the columns by name, in any order, among others."""

    def __init__(self, *, drop: Iterable[str] = (), max_categories: int = MAX_CATEGORIES) -> None:
        if isinstance(drop, str):
            raise TypeError(f"drop must be a list of names, not {drop!r}")
        if isinstance(max_categories, bool) or not isinstance(max_categories, int) or max_categories < 1:
            raise ValueError(f"max_categories is {max_categories!r}; it must be an integer of at least 1")
        self._drop = tuple(drop)
        self._max_categories = max_categories
        self.columns: tuple[_encoding.Encoded, ...] = ()
        self.dropped: dict[str, str] = {}

    def fit(self, table: Any) -> Self:
        """Learn means, deviations and categories.

        ShapeError where no column is left; ValueError for a name in `drop` that is none."""
        columns = _columns(table)
        for name in self._drop:
            if name not in columns.by_name:
                raise ValueError(f"drop: no column {name!r}{closest(name, columns.by_name)}")
        learned, dropped = [], dict.fromkeys(self._drop, "as asked")
        for name, column in columns.without(self._drop).by_name.items():
            try:
                if _counts_rows(name, column):
                    raise _encoding.Unusable("unnamed, and counting the rows: the index of a data frame")
                learned.append(_encoding.learn(name, column, self._max_categories))
            except _encoding.Unusable as reason:
                dropped[name] = str(reason)
        if not learned:
            reasons = "; ".join(f"{name!r}: {reason}" for name, reason in dropped.items())
            raise ShapeError(f"table: no column is left to learn from ({reasons or 'there is none'})")
        self.columns, self.dropped = tuple(learned), dropped
        return self

    def transform(self, table: Any, *, dtype: Any = "float32") -> Array:
        """The inputs (N, width). Warns (TableWarning) of categories and missing values that `fit` did not
        meet.

        ShapeError where columns are missing, DTypeError for text in a column of numbers."""
        X, notes = self.encode(_columns(table, self), dtype)
        for note in notes:
            warnings.warn(note, TableWarning, stacklevel=2)
        return X

    def fit_transform(self, table: Any, *, dtype: Any = "float32") -> Array:
        """`fit`, then `transform`, of one table."""
        columns = _columns(table)
        return self.fit(columns).encode(columns, dtype)[0]

    def encode(self, columns: Columns, dtype: Any) -> tuple[Array, list[str]]:
        """`transform`, with the warnings as text."""
        columns = columns.only(self.names)
        X = np.zeros((len(columns), self.width), float_dtype(dtype))
        notes: list[str] = []
        end = 0
        for encoded, column in zip(self.columns, columns.by_name.values(), strict=True):
            begin, end = end, end + len(encoded.inputs)
            with np.errstate(over="ignore"):
                notes += encoded.encode(column, X[:, begin:end])
            if isinstance(column, Numbers) and not (good := np.isfinite(X[:, begin])).all():
                value = column.values[int(np.argmin(good))]
                raise ValueError(f"table: column {encoded.name!r} holds {value!s}, beyond {X.dtype.name}")
        return X, notes

    @property
    def names(self) -> list[str]:
        """The columns that `transform` reads."""
        return [column.name for column in self._learned()]

    @property
    def inputs(self) -> list[str]:
        """What each input stands for: "age", "age missing", "city=Rome"."""
        return [name for column in self._learned() for name in column.inputs]

    @property
    def width(self) -> int:
        """Inputs a row."""
        return len(self.inputs)

    @property
    def kinds(self) -> dict[str, type[Numbers] | type[Text]]:
        """What each column must be in a CSV file."""
        text = _encoding.TextColumn
        return {c.name: Text if isinstance(c, text) else Numbers for c in self._learned()}

    def describe(self) -> str:
        """A line for each column: what it becomes, or why it was dropped."""
        lines = {column.name: column.description() for column in self._learned()}
        lines |= {name: f"dropped: {reason}" for name, reason in self.dropped.items()}
        width = max(map(len, lines))
        return "\n".join(f"  {name:<{width}}  {line}" for name, line in lines.items())

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes; for `net.preprocessing["table"]`, by which `net.predict` takes tables."""
        return {"columns": [column.to_json() for column in self._learned()], "dropped": self.dropped}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """FileError for what `to_json` does not write."""
        what = "the model's preprocessing: table"
        if not isinstance(value, dict) or set(value) != {"columns", "dropped"}:
            raise FileError(f"{what} must hold columns and dropped")
        columns, dropped = value["columns"], value["dropped"]
        if not isinstance(columns, list) or not columns or not isinstance(dropped, dict):
            raise FileError(f"{what} has no columns")
        if not all(isinstance(reason, str) for reason in dropped.values()):
            raise FileError(f"{what}: dropped must tell why")
        encoder = cls()
        try:
            encoder.columns = tuple(map(_encoding.from_json, columns))
        except FileError as error:
            raise FileError(f"{what}: {error}") from error
        if not _encoding.is_names(encoder.names):
            raise FileError(f"{what}: two columns share a name")
        encoder.dropped = dropped
        return encoder

    def _learned(self) -> tuple[_encoding.Encoded, ...]:
        if not self.columns:
            raise RuntimeError("TableEncoder: nothing is learned yet; call fit first")
        return self.columns

    def __repr__(self) -> str:
        if not self.columns:
            return f"TableEncoder(drop={list(self._drop)}, max_categories={self._max_categories})"
        return f"<TableEncoder: {len(self.columns)} columns to {self.width} inputs>"


def _columns(table: Any, encoder: TableEncoder | None = None) -> Columns:
    if isinstance(table, Columns):
        return table
    if isinstance(table, str | os.PathLike):
        if encoder is None:
            return _csv.read(table)
        return _csv.read(table, wanted=encoder.names, kinds=encoder.kinds)
    return columns_of(table)


def _counts_rows(name: str, column: Numbers | Text) -> bool:
    """Whether a column of a CSV file is the index that frames write in front, without a name."""
    if not name.startswith(_csv.UNNAMED) or not isinstance(column, Numbers):
        return False
    steps: NDArray[np.float64] = np.diff(column.values)
    return bool((steps == 1).all()) and len(steps) > 0


# -- what a network does with tables -------------------------------------------------------------------------


def for_fit(
    network: "Network", X: Any, y: Any, validation_data: Any
) -> tuple[dict[str, Any], Array, Array, Any]:
    """(preprocessing, X, y, validation_data) for a table X, as arrays; `preprocessing` is the network's with
    what X and y taught it, to be stored once the fit begins.

    X is learned from where it holds text, and no encoder is there yet; y where it is text, and no classes."""
    columns, target = _parted(X, y, "")
    preprocessing = dict(network.preprocessing)
    if columns.has_text and "table" not in preprocessing:
        preprocessing["table"] = TableEncoder().fit(columns).to_json()
        name = y if isinstance(y, str) else getattr(y, "name", None)
        if isinstance(name, str):
            preprocessing["target"] = name
    if target.dtype.kind == "U" and "classes" not in preprocessing:
        preprocessing["classes"] = np.unique(target).tolist()
    inputs, targets = _arrays(preprocessing, columns, target, network.dtype, "")
    if isinstance(validation_data, Sequence) and len(validation_data) == 2 and is_table(validation_data[0]):
        held_columns, held_target = _parted(validation_data[0], validation_data[1], "validation ")
        validation_data = _arrays(preprocessing, held_columns, held_target, network.dtype, "validation ")
    return preprocessing, inputs, targets, validation_data


def pair_of(network: "Network", X: Any, y: Any) -> tuple[Array, Array]:
    """(inputs, targets) of a table X, for a network as it is."""
    return _arrays(network.preprocessing, *_parted(X, y, ""), network.dtype, "")


def inputs_of(network: "Network", X: Any, what: str) -> Array:
    """The inputs of a table (N, width): as the network's encoder says, else its numbers, column by column."""
    return _inputs(network.preprocessing, columns_of(X, what), network.dtype, what)


def positions(classes: Sequence[Any], labels: Array, what: str) -> NDArray[np.int64]:
    """Where each label stands in the sorted `classes`. ShapeError for one that is none of them."""
    known = np.array(classes)
    if (known.dtype.kind == "U") != (labels.dtype.kind == "U"):
        unknown = labels[:1]
    else:
        unknown = np.setdiff1d(labels, known)
    if len(unknown):
        raise ShapeError(f"{what}: label {unknown.tolist()[0]!r} is none of the model's {len(known)} classes")
    return np.searchsorted(known, labels).astype(np.int64)


def _parted(X: Any, y: Any, which: str) -> tuple[Columns, Array]:
    """The columns to learn from, and the targets: numbers, or text as a U array. y may name a column of X."""
    columns = columns_of(X, f"{which}X")
    if isinstance(y, str):
        if y not in columns.by_name:
            raise ValueError(f"{which}y: X has no column {y!r}{closest(y, columns.by_name)}")
        target = columns.by_name[y]
        return columns.without([y]), _plain(target, f"{which}y")
    if is_table(y):
        targets = columns_of(y, f"{which}y").by_name.items()
        parts = [_plain(column, f"{which}y: column {name!r}") for name, column in targets]
        return columns, np.column_stack(parts) if len(parts) > 1 else parts[0]
    array = as_array(y, f"{which}y")
    if array.ndim == 1 and (array.dtype.kind not in "biuf" or np.isnan(array).any()):
        array = _plain(column_of(y, f"{which}y"), f"{which}y")
    return columns, array


def _plain(column: Numbers | Text, what: str) -> Array:
    """Targets without gaps: names, integers where all are whole, or numbers."""
    if column.missing.any():
        raise ValueError(f"{what} has no value in row {int(np.argmax(column.missing))}")
    if isinstance(column, Text):
        return column.array().astype("U")
    return whole_numbers(column.values)


def _arrays(
    preprocessing: dict[str, Any], columns: Columns, target: Array, dtype: str, which: str
) -> tuple[Array, Array]:
    inputs = _inputs(preprocessing, columns, dtype, f"{which}X")
    if "classes" in preprocessing and preprocessing["classes"] is not None and target.ndim == 1:
        target = positions(preprocessing["classes"], target, f"{which}y")
    return inputs, target


def _inputs(preprocessing: dict[str, Any], columns: Columns, dtype: str, what: str) -> Array:
    if "table" in preprocessing:
        return TableEncoder.from_json(preprocessing["table"]).transform(columns, dtype=dtype)
    values = []
    for name, column in columns.by_name.items():
        if isinstance(column, Text):
            raise DTypeError(
                f"{what}: column {name!r} holds text, and the network was not trained on tables with text"
            )
        if column.missing.any():
            raise ValueError(
                f"{what}: column {name!r} has no value in row {int(np.argmax(column.missing))}; fill it, or "
                "let gm.tables.TableEncoder do so"
            )
        values.append(column.values)
    return np.column_stack(values)
