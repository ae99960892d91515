"""Types of command-line arguments; argparse shows the message of their ArgumentTypeError. What it cannot
check is a UsageError."""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any


class UsageError(Exception):
    """Options that do not go together, or not with the data."""


def _number(kind: type[int] | type[float], wanted: str, good: Callable[[Any], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not good(value):
            raise argparse.ArgumentTypeError(f"{text!r}: expected {wanted}")
        return value

    return parse


count = _number(int, "an integer of at least 1", lambda n: 1 <= n < 2**31)
natural = _number(int, "an integer from 0 to 2**63 - 1", lambda n: 0 <= n < 2**63)
positive = _number(float, "a number above 0", lambda x: 0 < x < float("inf"))
share = _number(float, "a number between 0 and 1", lambda x: 0 < x < 1)
rate = _number(float, "a number, 0 <= P < 1", lambda x: 0 <= x < 1)


def widths(text: str) -> list[int]:
    return [] if text == "none" else [count(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Columns' names, parted by commas; quoted as in CSV where they hold one."""
    found = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not found or not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names of columns, parted by commas")
    return found


def delimiter(text: str) -> str:
    value = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(value) != 1 or value in '\r\n"':
        raise argparse.ArgumentTypeError(f"{text!r}: expected one character, or 'tab'")
    return value


def table_path(text: str) -> Path:
    if not text.endswith((".csv", ".npy")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name ending in .csv or .npy")
    return Path(text)
