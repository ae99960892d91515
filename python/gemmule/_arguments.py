"""Types of command-line arguments; argparse shows the message of their ArgumentTypeError."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def table_path(text: str) -> Path:
    if not text.endswith((".csv", ".npy")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name ending in .csv or .npy")
    return Path(text)
