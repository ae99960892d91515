"""How one column of a table becomes inputs of a network; what `TableEncoder` keeps of each."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Self

import numpy as np

from ._columns import Array, Column, Numbers, Text, listed
from .errors import DTypeError, FileError

_CONSTANT = 1e-12  # deviation below this share of the mean: of rounding
_UNKNOWN_SHOWN = 3


class Unusable(Exception):  # noqa: N818 - a decision, not a fault
    """Why a column says nothing; it is dropped."""


@dataclass(frozen=True)
class NumberColumn:
    """(x - mean) / deviation, 0 where x is missing; where any was missing among the rows learned from, a
    second input of 1 marks those."""

    kind: ClassVar[str] = "number"
    name: str
    mean: float
    deviation: float
    missing: int  # rows without a value, of those learned from

    @classmethod
    def learn(cls, name: str, column: Numbers) -> Self:
        present = column.values[~column.missing]
        if not len(present):
            raise Unusable("no value in any row")
        missing = len(column) - len(present)
        mean, deviation = float(present.mean()), float(present.std())
        if deviation <= _CONSTANT * abs(mean):
            if not missing:
                raise Unusable("the same value in every row")
            deviation = 1.0
        return cls(name, mean, deviation, missing)

    @property
    def inputs(self) -> list[str]:
        return [self.name, f"{self.name} missing"] if self.missing else [self.name]

    def encode(self, column: Column, out: Array) -> list[str]:
        """Fill `out` (N, width), which holds zeros; what is to be told of the rows."""
        if isinstance(column, Text):
            column = self._numbers(column)
        missing = column.missing
        out[:, 0] = np.where(missing, 0.0, (column.values - self.mean) / self.deviation)
        if self.missing:
            out[:, 1] = missing
        elif count := int(missing.sum()):
            return [f"column {self.name!r}: {_rows(count)} without a value, filled with the mean"]
        return []

    def _numbers(self, column: Text) -> Numbers:
        """Text without a single cell may stand for numbers."""
        if not column.missing.all():
            name = column.names[int(column.codes[~column.missing][0])]
            raise DTypeError(f"table: column {self.name!r} holds {name!r}; it held numbers in training")
        return Numbers(np.full(len(column), np.nan))

    def description(self) -> str:
        text = f"number, mean {self.mean:.4g}, deviation {self.deviation:.4g}"
        if self.missing:
            text += f"; {self.missing:,} missing: filled with the mean, and marked by an input"
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "mean": self.mean,
            "deviation": self.deviation,
            "missing": self.missing,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        mean, deviation, missing = (value[key] for key in ("mean", "deviation", "missing"))
        numbers = type(mean) is float and type(deviation) is float and isfinite(mean) and isfinite(deviation)
        if not numbers or deviation <= 0 or not _is_count(missing):
            raise FileError(f"column {value['name']!r} has mean {mean!r}, deviation {deviation!r}")
        return cls(value["name"], mean, deviation, missing)


@dataclass(frozen=True)
class TextColumn:
    """One input per category, 1 for its own and 0 else; a category of its own for missing cells, where any
    was missing among the rows learned from. Any other text is 0 everywhere."""

    kind: ClassVar[str] = "text"
    name: str
    categories: tuple[str, ...]
    missing: int
    rare: int  # rows learned from whose categories were too many to keep

    @classmethod
    def learn(cls, name: str, column: Text, most: int) -> Self:
        present = column.codes[~column.missing]
        missing = len(column) - len(present)
        counts = np.bincount(present, minlength=len(column.names))
        found = np.flatnonzero(counts)
        if not len(found):
            raise Unusable("no value in any row")
        if len(found) == 1 and not missing:
            raise Unusable("the same value in every row")
        if len(found) == len(present) and len(found) > 1:
            raise Unusable("as many categories as rows: an id, which says nothing of other rows")
        commonest = sorted(found.tolist(), key=lambda code: (-counts[code], column.names[code]))[:most]
        categories = tuple(sorted(column.names[code] for code in commonest))
        return cls(name, categories, missing, int(len(present) - counts[commonest].sum()))

    @property
    def inputs(self) -> list[str]:
        named = [f"{self.name}={category}" for category in self.categories]
        return [*named, f"{self.name} missing"] if self.missing else named

    def encode(self, column: Column, out: Array) -> list[str]:
        """Fill `out` (N, width), which holds zeros; what is to be told of the rows."""
        if isinstance(column, Numbers):
            column = column.as_text()
        place = {category: i for i, category in enumerate(self.categories)}
        absent = len(self.categories) if self.missing else -1
        # The last entry is for code -1; a place of -1 is none.
        places = np.array([*(place.get(name, -1) for name in column.names), absent])[column.codes]
        known = np.flatnonzero(places >= 0)
        out[known, places[known]] = 1
        notes = []
        unknown = (places < 0) & ~column.missing
        if count := int(unknown.sum()):
            names = [column.names[code] for code in dict.fromkeys(column.codes[unknown].tolist())]
            examples = ", ".join(map(repr, names[:_UNKNOWN_SHOWN])) + (", ..." * (len(names) > 3))
            notes.append(
                f"column {self.name!r}: {_rows(count)} with a category not learned ({examples}), "
                "zeros in its inputs"
            )
        if not self.missing and (count := int(column.missing.sum())):
            notes.append(f"column {self.name!r}: {_rows(count)} without a value, zeros in its inputs")
        return notes

    def description(self) -> str:
        text = f"text, {len(self.categories):,} categories: {listed(self.categories)}"
        if self.rare:
            text += f"; {self.rare:,} rows of rarer ones have zeros in its inputs"
        if self.missing:
            text += f"; {self.missing:,} missing: a category of their own"
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "categories": list(self.categories),
            "missing": self.missing,
            "rare": self.rare,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        categories, missing, rare = (value[key] for key in ("categories", "missing", "rare"))
        if not is_names(categories) or not categories or not _is_count(missing) or not _is_count(rare):
            raise FileError(f"column {value['name']!r} has no list of categories")
        return cls(value["name"], tuple(categories), missing, rare)


Encoded = NumberColumn | TextColumn


def learn(name: str, column: Column, most_categories: int) -> Encoded:
    """Unusable where the column tells nothing."""
    if isinstance(column, Numbers):
        return NumberColumn.learn(name, column)
    return TextColumn.learn(name, column, most_categories)


def from_json(value: Any) -> Encoded:
    """FileError for what `to_json` does not write."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise FileError("a column without a name")
    kinds: dict[Any, type[Encoded]] = {kind.kind: kind for kind in (NumberColumn, TextColumn)}
    try:
        return kinds[value["kind"]].from_json(value)
    except (KeyError, TypeError) as error:
        raise FileError(f"column {value['name']!r} has no or an unknown {error}") from error


def is_names(value: Any) -> bool:
    """A list of strings, each once."""
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
