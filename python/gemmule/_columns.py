"""Tables by column: numbers with NaN, or text as codes, where a value is missing; out of frames, dicts of
columns and structured arrays.

Frames are known by what they offer (`columns` and `frame[name]`), so that neither pandas nor polars is
imported here.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .arrays import is_table
from .errors import DTypeError, ShapeError

Array = NDArray[Any]
FLOAT32_MAX = float(np.finfo(np.float32).max)
_SHOWN = 20  # names in a message


@dataclass(frozen=True)
class Numbers:
    """A column of numbers: float64 (N,), NaN where one is missing."""

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Self:
        return type(self)(self.values[rows])

    @property
    def missing(self) -> NDArray[np.bool_]:
        return np.isnan(self.values)

    def as_text(self) -> "Text":
        """The numbers as names, whole ones without a point."""
        values, codes = np.unique(self.values, return_inverse=True)  # NaN comes last, once
        names = tuple(
            str(int(value)) if value.is_integer() else repr(value)
            for value in values[~np.isnan(values)].tolist()
        )
        return Text(np.where(self.missing, -1, codes).astype(np.int32), names)

    def hash_into(self, digest: Any) -> None:
        digest.update(np.where(self.missing, np.nan, self.values).tobytes())  # one NaN of many


@dataclass(frozen=True)
class Text:
    """A column of text: codes (N,) into `names`, -1 where it is missing. Names may be unused."""

    codes: NDArray[np.int32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Self:
        return type(self)(self.codes[rows], self.names)

    @property
    def missing(self) -> NDArray[np.bool_]:
        return np.asarray(self.codes < 0)

    def array(self) -> Array:
        """object (N,): str, None where missing."""
        return np.array([*self.names, None], dtype=object)[self.codes]

    def hash_into(self, digest: Any) -> None:
        digest.update(self.codes.tobytes())
        digest.update("\0".join(self.names).encode("utf-8", "surrogatepass"))


Column = Numbers | Text


@dataclass(frozen=True)
class Columns:
    """A table: columns of one length by name. `table[rows]` is the table of some of its rows."""

    by_name: dict[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.by_name.values())))

    def __getitem__(self, rows: Any) -> Self:
        return type(self)({name: column[rows] for name, column in self.by_name.items()})

    def only(self, names: Iterable[str]) -> Self:
        """These columns in this order. ShapeError naming all that are missing."""
        names = list(names)
        absent = [name for name in names if name not in self.by_name]
        if absent:
            raise ShapeError(
                f"table: no column {listed(absent, quoted=True)}; there are {listed(self.by_name)}"
            )
        return type(self)({name: self.by_name[name] for name in names})

    def without(self, names: Iterable[str]) -> Self:
        left_out = set(names)
        return type(self)({n: column for n, column in self.by_name.items() if n not in left_out})

    @property
    def has_text(self) -> bool:
        return any(isinstance(column, Text) for column in self.by_name.values())

    def hash_into(self, digest: Any) -> None:
        for name, column in self.by_name.items():
            digest.update(f"{name}\0{type(column).__name__}\0".encode("utf-8", "surrogatepass"))
            column.hash_into(digest)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        self.hash_into(digest)
        return digest.hexdigest()


class Codes(dict[Any, int]):
    """Cells to codes: a new name is given the next code when it is first looked up."""

    def __init__(self, missing: frozenset[str] = frozenset()) -> None:
        self.names: dict[str, int] = {}
        self._missing = missing

    def __missing__(self, cell: str) -> int:
        name = cell.strip() if self._missing else cell
        code = -1 if name.lower() in self._missing else self.names.setdefault(name, len(self.names))
        self[cell] = code
        return code

    def of(self, cells: Sequence[str]) -> NDArray[np.int32]:
        return np.fromiter(map(self.__getitem__, cells), np.int32, len(cells))


# -- from what users have ------------------------------------------------------------------------------------


def columns_of(table: Any, what: str = "table") -> Columns:
    """The columns of a frame (pandas, polars, Arrow), a mapping of names to columns or a structured array.

    TypeError where it is none of these; DTypeError for a column that is neither numbers nor text (dates,
    lists); ShapeError for columns of different lengths, no rows, no columns or two columns of one name."""
    if not is_table(table):
        raise TypeError(
            f"{what}: expected a data frame, a dict of columns or a structured array, not "
            f"{type(table).__name__}"
        )
    if not hasattr(table, "__len__"):
        raise TypeError(f"{what}: a lazy frame ({type(table).__name__}); call its collect() first")
    if isinstance(table, Mapping):
        labels = list(table)
    elif isinstance(table, np.ndarray):
        labels = list(table.dtype.names or ())
    else:
        labels = list(getattr(table, "column_names", table.columns))
    names = [str(label) for label in labels]
    check_names(names, what)
    result = {
        name: column_of(table[label], f"{what}: column {name!r}")
        for name, label in zip(names, labels, strict=True)
    }
    lengths = {name: len(column) for name, column in result.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {length}" for name, length in list(lengths.items())[:_SHOWN])
        raise ShapeError(f"{what}: the columns differ in rows: {shown}")
    if not lengths or not next(iter(lengths.values())):
        raise ShapeError(f"{what}: it has no {'rows' if lengths else 'columns'}")
    return Columns(result)


def check_names(names: Sequence[str], what: str, error: type[Exception] = ShapeError) -> None:
    """`error` where two columns share a name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise error(f"{what}: more than one column is called {listed(twice, quoted=True)}")


def column_of(column: Any, what: str) -> Column:
    """One column: anything NumPy takes, in one dimension. A pandas categorical is text, whatever it holds."""
    array = np.asarray(column)
    if array.ndim != 1:
        raise ShapeError(f"{what} has shape {array.shape}; a column is (N,)")
    found = _of_array(array, what)
    categorical = str(getattr(column, "dtype", "")) == "category"
    return found.as_text() if categorical and isinstance(found, Numbers) else found


def _of_array(array: Array, what: str) -> Column:
    if array.dtype.kind in "biuf":
        values = array.astype(np.float64)
        wrong = np.flatnonzero(np.abs(values) > FLOAT32_MAX)  # NaN is not
        if len(wrong):
            raise ValueError(
                f"{what} holds {values[wrong[0]]!s} in row {wrong[0]}; numbers in the range of float32 are "
                "due"
            )
        return Numbers(values)
    if array.dtype.kind == "U":
        codes = Codes()
        return Text(codes.of(array.tolist()), tuple(codes.names))
    if array.dtype.kind == "O":
        return _of_objects(array.tolist(), what)
    raise DTypeError(f"{what} has dtype {array.dtype}; make it numbers or text first")


def _of_objects(cells: list[Any], what: str) -> Column:
    """Text where every cell there is is one, numbers where every one is a number."""
    kinds = {type(cell) for cell in cells}
    if kinds == {str}:  # nothing missing: nothing to look at twice
        codes = Codes()
        return Text(codes.of(cells), tuple(codes.names))
    there = [not _is_missing(cell) for cell in cells]
    present = [cell for cell, here in zip(cells, there, strict=True) if here]
    if present and all(isinstance(cell, str) for cell in present):
        codes = Codes()
        filled = np.full(len(cells), -1, np.int32)
        filled[there] = codes.of(present)
        return Text(filled, tuple(codes.names))
    odd = [cell for cell in present if not isinstance(cell, int | float | np.number | np.bool_)]
    if odd:
        beside = " beside numbers" if len(odd) < len(present) else ""
        raise DTypeError(
            f"{what} holds {odd[0]!r} ({type(odd[0]).__name__}){beside}; make it all numbers or all text"
        )
    values = np.full(len(cells), np.nan)
    values[there] = [float(cell) for cell in present]
    return _of_array(values, what)


def whole_numbers(values: Array) -> Array:
    """As int64 where all are whole, else as they are."""
    whole = (values == np.floor(values)) & (np.abs(values) < 2.0**53)
    return values.astype(np.int64) if whole.all() else values


def _is_missing(cell: Any) -> bool:
    """None, NaN, and what pandas has for them."""
    if isinstance(cell, float):
        return cell != cell
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


# -- messages ------------------------------------------------------------------------------------------------


def listed(names: Iterable[str], quoted: bool = False) -> str:
    """Names for a message, the first of many."""
    names = list(names)
    shown = [repr(name) if quoted else name for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more


def closest(name: str, names: Iterable[str]) -> str:
    """A suggestion for a mistyped name, or nothing."""
    names = list(names)
    by_folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return f" (did you mean {by_folded[found[0]]!r}?)" if found else ""
