"""CSV files as columns: delimiters, kinds, gaps, and what is said of files that are no tables."""

import csv
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmule import FileError, _csv
from gemmule._columns import Numbers, Text
from gemmule.tables import read_csv


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def cells(columns: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in columns.items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_marks(path: Path, delimiter: str, end: str, mark: str) -> None:
    rows = [["a", "name, first", "größe"], ["1", '"x; ""y"""', "-2.5e3"], [" 2 ", "'", ".5"]]
    rows[0][1] = f'"{rows[0][1]}"'
    path.write_text(mark + end.join(delimiter.join(row) for row in rows), encoding="utf-8", newline="")
    expected = {"a": [1, 2], "name, first": ['x; "y"', "'"], "größe": [-2500, 0.5]}
    assert cells(read_csv(path)) == expected
    assert cells(read_csv(path, delimiter=delimiter)) == expected


def test_any_delimiter_by_name(path: Path) -> None:
    path.write_text("a|b\n1|x,y\n")
    assert cells(read_csv(path, delimiter="|")) == {"a": [1], "b": ["x,y"]}


def test_gaps_in_numbers_and_text(path: Path) -> None:
    path.write_text("n,t,none\n1,x,\nNA,na,?\n?,,NaN\n,?,null\nNaN,null,NULL\nnull, Nan ,\n2,nanny,NA\n")
    columns = read_csv(path)
    np.testing.assert_array_equal(columns["n"], [1, *[np.nan] * 5, 2])
    assert columns["t"].tolist() == ["x", *[None] * 5, "nanny"]
    assert np.isnan(columns["none"]).all()


def test_what_counts_as_a_number(path: Path) -> None:
    path.write_text("a,b,c,d,e\n1,1_0,0x10,1.5,007\n-1e-3,2,3,1;5,1\n")
    kinds = {name: column.dtype.kind for name, column in read_csv(path).items()}
    assert kinds == {"a": "f", "b": "O", "c": "O", "d": "O", "e": "f"}


def test_blank_lines_and_fields_of_several_lines(path: Path) -> None:
    path.write_text('\ufeff"a\nb",c\n\n1,"x\ny"\n\n\n2,z\n\n', encoding="utf-8")
    assert cells(read_csv(path)) == {"a\nb": [1, 2], "c": ["x\ny", "z"]}


def test_columns_without_a_name(path: Path) -> None:
    path.write_text(",a, \n0,5,x\n")
    assert list(read_csv(path)) == ["Unnamed: 0", "a", "Unnamed: 2"]


@pytest.mark.parametrize("late", [5, 6, 7, 12, 13])
def test_a_column_that_turns_to_text_late(path: Path, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    """Over chunks of six rows; the text of the numbers before is not lost."""
    monkeypatch.setattr(_csv, "_ROWS", 6)
    lines = [f"{i}.50,{i},{'x' if i == late else f'0{i}'}" for i in range(20)]
    path.write_text("\ufeffa,b,c\n" + "\n".join(lines), encoding="utf-8")
    columns = read_csv(path)
    assert list(columns) == ["a", "b", "c"]
    np.testing.assert_array_equal(columns["a"], np.arange(20) + 0.5)
    np.testing.assert_array_equal(columns["b"], np.arange(20))
    assert columns["c"].tolist() == ["x" if i == late else f"0{i}" for i in range(20)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.floats(width=32)),
        min_size=1,
        max_size=30,
    )
)
def test_what_csv_writes_is_read(rows: list[tuple[str, float]], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "number"])
        writer.writerows((text, "" if np.isinf(number) else repr(number)) for text, number in rows)
    columns = _csv.read(path, kinds={"text": Text, "number": Numbers}).by_name
    number, text = columns["number"], columns["text"]
    assert isinstance(number, Numbers) and isinstance(text, Text)
    np.testing.assert_array_equal(number.values, [np.nan if np.isinf(x) else x for _, x in rows])
    stripped = [text.strip() for text, _ in rows]
    assert text.array().tolist() == [None if t.lower() in _csv.MISSING else t for t in stripped]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b"\n\n1,2\n", "no header in line 1"),
        (b"a,b\n", "no rows below the header"),
        (b"a,b\n\n\n", "no rows below the header"),
        (b"a,b\n1,2\n3\n", r"line 3 has 1 fields, the header has 2 \(parted by ','\)"),
        (b"a,b\n1,2\n\n3,4,5\n", "line 4 has 3 fields, the header has 2"),
        (b'a,b\n"x\ny",2\n3,4,\n', "line 4 has 3 fields"),
        (b"a;b;a;b\n1;2;3;4\n", "more than one column is called 'a', 'b'"),
        (b"a, a \n1,2\n", "more than one column is called 'a'"),
        (b'a,b\n1,"x\n2,y\n', "line 3: unexpected end of data"),
        (b'a,b\n1,"x"y\n', "line 2: ',' expected after '\"'"),
        (b'a,"b\n', "line 1: unexpected end of data"),
        (b"a,b\n1,2\n3,caf\xe9\n", r"byte 0xe9 after line \d is not UTF-8"),
        (b"\xff\xfea\x00", "byte 0xff after line 0 is not UTF-8"),
        (b"PK\x03\x04\x00\x00,\n1,2\n", "a binary file"),
        (b"a,b\n1,2\n3,inf\n", "column 'b' holds inf in line 3; numbers in the range of float32"),
        (b"a,b\n1,2\n3,-1e39\n1,1e99\n", "column 'b' holds -1e39 in line 3"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "line 2: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(path: Path, content: bytes, match: str) -> None:
    path.write_bytes(content)
    with pytest.raises(FileError, match=match) as raised:
        read_csv(path)
    assert str(path) in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="a folder"):
        read_csv(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "absent.csv")


def test_a_file_without_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_csv, "_LONGEST_HEADER", 100)
    path.write_text("a" * 100)
    with pytest.raises(FileError, match="line 1 does not end within 100 characters"):
        read_csv(path)


def test_wanted_columns_and_kinds(path: Path) -> None:
    path.write_text("a,b,c\n007,1,x\n\n8,oops,y\n")
    found = _csv.read(path, wanted=["c", "a"], kinds={"a": Text, "c": Text}).by_name
    assert list(found) == ["a", "c"]
    assert isinstance(found["a"], Text) and found["a"].names == ("007", "8")
    with pytest.raises(FileError, match="no column 'd', 'e'; its columns are a, b, c"):
        _csv.read(path, wanted=["a", "d", "e"])
    with pytest.raises(FileError, match="column 'b' holds 'oops' in line 4; numbers are due there"):
        _csv.read(path, kinds={"b": Numbers})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_csv, "_ROWS", 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed(text: str) -> None:
        thread = threading.Thread(target=pipe.write_text, args=(text,))
        thread.start()
        try:
            assert cells(read_csv(pipe)) == {"a": [1, 2, 3], "b": [1, 2, 3]}
        finally:
            thread.join()

    feed("a,b\n1,1\n2,2\n3,3\n")
    with pytest.raises(FileError, match="column 'b' turns to text late, and a pipe is read but once"):
        feed("a,b\n1,1\n2,2\n3,x\n")
