"""CSV files as columns.

A file is read once, in chunks of rows; a cell is kept as a number of 8 bytes or the code of 4 bytes of its
text. Only where a column of numbers turns out to hold text after the first chunk is it read a second time,
for that column alone: the text of its numbers is not kept.
"""

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from ._columns import FLOAT32_MAX, Array, Codes, Column, Columns, Numbers, Text, check_names, listed
from .errors import FileError

DELIMITERS = (",", ";", "\t")
MISSING = frozenset({"", "na", "nan", "null", "?"})  # in any case
UNNAMED = "Unnamed: "  # a column without a name, by its place from 0; so pandas calls it too
_LONGEST_HEADER = 1 << 24
_ROWS = 8192  # a chunk: some MB of cells as text

PathLike = str | os.PathLike[str]
Kinds = Mapping[str, type[Numbers] | type[Text]]


def read(
    path: PathLike,
    *,
    delimiter: str | None = None,
    wanted: Collection[str] | None = None,
    kinds: Kinds | None = None,
) -> Columns:
    """The columns of a CSV file with a header, in the file's order; numbers where every cell that is not
    missing is one.

    delimiter: of one character; by default that of comma, semicolon and tab which parts the header into most
        fields.
    wanted: only these columns. kinds: what some columns must be.

    Cells and names are stripped of blanks, lines without anything are skipped. A column without a name is
    called "Unnamed: 0" by its place. FileError, naming file and line: a row with more or fewer fields than
    the header, a cell of a column that must be numbers, a number beyond float32, broken quotes, a name that
    occurs twice, no UTF-8, no header, no rows; and where wanted columns are missing."""
    kinds = {} if kinds is None else kinds
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: a folder, not a CSV file")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = _Reader(path, file, delimiter)
        absent = sorted(set(wanted or ()) - set(reader.names))
        if absent:
            raise FileError(
                f"{path}: no column {listed(absent, quoted=True)}; its columns are {listed(reader.names)}"
            )
        chosen = set(reader.names if wanted is None else wanted)
        columns = reader.columns({name: kinds.get(name) for name in reader.names if name in chosen})
        late = [name for name, column in columns.items() if column is None]
        if late:
            if not file.seekable():
                raise FileError(f"{path}: column {late[0]!r} turns to text late, and a pipe is read but once")
            file.seek(0)
            columns |= _Reader(path, file, reader.delimiter).columns(dict.fromkeys(late, Text))
    return Columns({name: column for name, column in columns.items() if column is not None})


class _Reader:
    """One pass over a file, whose header is read at once."""

    def __init__(self, path: Path, file: TextIO, delimiter: str | None) -> None:
        self._path = path
        self._line = 0  # where the reader is, for errors of the decoder
        self.names: list[str] = []
        try:
            first = file.readline(_LONGEST_HEADER)
        except UnicodeDecodeError as error:
            raise self._not_utf8(error) from error
        if not first.strip():
            raise FileError(f"{path}: {'no header in line 1' if first else 'the file is empty'}")
        if len(first) == _LONGEST_HEADER:
            raise FileError(f"{path}: line 1 does not end within {_LONGEST_HEADER:,} characters")
        self.delimiter = delimiter or _sniffed(first)
        self._rows = csv.reader(_chained(first, file), delimiter=self.delimiter, strict=True)
        (header,) = self._records(1)[0] or [[]]
        if any("\0" in name for name in header):
            raise FileError(f"{path}: a binary file, not a table of text")
        self.names = [name.strip() or f"{UNNAMED}{i}" for i, name in enumerate(header)]
        check_names(self.names, str(path), FileError)

    def columns(self, kinds: Mapping[str, type[Numbers] | type[Text] | None]) -> dict[str, Column | None]:
        """The columns named in `kinds`; None for one that turned to text too late."""
        builders = {
            place: _Builder(f"{self._path}: column {name!r}", kinds[name])
            for place, name in enumerate(self.names)
            if name in kinds
        }
        empty = True
        while True:
            rows, lines = self._records(_ROWS)
            if not rows:
                break
            empty = False
            cells = list(zip(*rows, strict=True))
            for place, builder in builders.items():
                builder.add(cells[place], lines)
        if empty:
            raise FileError(f"{self._path}: no rows below the header")
        return {self.names[place]: builder.column() for place, builder in builders.items()}

    def _records(self, count: int) -> tuple[list[list[str]], list[int]]:
        """The next `count` rows, each as wide as the header, and their line numbers."""
        rows: list[list[str]] = []
        lines: list[int] = []
        width = len(self.names)  # 0: of the header itself
        try:
            for row in self._rows:
                self._line = self._rows.line_num
                if not row:  # an empty line
                    continue
                if width and len(row) != width:
                    raise FileError(
                        f"{self._path}: line {self._line} has {len(row)} fields, the header has {width} "
                        f"(parted by {self.delimiter!r})"
                    )
                rows.append(row)
                lines.append(self._line)
                if len(rows) == count:
                    break
        except csv.Error as error:
            raise FileError(f"{self._path}: line {self._rows.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise self._not_utf8(error) from error
        return rows, lines

    def _not_utf8(self, error: UnicodeDecodeError) -> FileError:
        byte = error.object[error.start]
        return FileError(
            f"{self._path}: byte 0x{byte:02x} after line {self._line} is not UTF-8; save the file as UTF-8"
        )


class _Builder:
    """A column on its way: numbers until a cell is none, then the codes of text."""

    def __init__(self, what: str, kind: type[Numbers] | type[Text] | None) -> None:
        self._what = what
        self._must_be_numbers = kind is Numbers
        self._codes = Codes(MISSING) if kind is Text else None
        self._chunks: list[Array] = []
        self._late = False
        self._beyond: tuple[str, int] | None = None  # the first number beyond float32, with its line

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        if self._late:
            return
        if self._codes is None:
            try:
                values = _numbers(cells)
            except ValueError:
                self._turn_to_text(cells, lines)
            else:
                if self._beyond is None and (beyond := np.flatnonzero(np.abs(values) > FLOAT32_MAX)).size:
                    self._beyond = cells[beyond[0]].strip(), lines[beyond[0]]
                self._chunks.append(values)
        if self._codes is not None and not self._late:
            self._chunks.append(self._codes.of(cells))

    def _turn_to_text(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        if self._must_be_numbers:
            cell, line = next((c, n) for c, n in zip(cells, lines, strict=True) if not _is_number(c))
            raise FileError(f"{self._what} holds {cell.strip()!r} in line {line}; numbers are due there")
        self._late = bool(self._chunks)
        self._chunks = []
        self._codes = Codes(MISSING)

    def column(self) -> Column | None:
        if self._late:
            return None
        if self._codes is not None:
            return Text(np.concatenate(self._chunks), tuple(self._codes.names))
        if self._beyond is not None:
            cell, line = self._beyond
            raise FileError(
                f"{self._what} holds {cell} in line {line}; numbers in the range of float32 are due"
            )
        return Numbers(np.concatenate(self._chunks))


def _numbers(cells: Sequence[str]) -> Array:
    """float64 (N,), NaN for what is missing; ValueError where a cell is text."""
    if "_" in "".join(cells):  # to `float`, 1_000 is a number
        raise ValueError
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return np.array([float("nan") if cell.strip().lower() in MISSING else float(cell) for cell in cells])


def _is_number(cell: str) -> bool:
    try:
        _numbers([cell])
    except ValueError:
        return False
    return True


def _sniffed(line: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter))))


def _chained(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest
