"""A run of a benchmark as it is kept."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import FileError
from .outcome import Outcome
from .summary import summarize

Unit = Literal["GFLOP/s", "ms", "images/s"]


@dataclass
class Results:
    """What was measured where. `labels`: the contenders; `ceilings`: FLOP/s by type, threads and ISA."""

    unit: Unit
    labels: list[str]
    machine: dict[str, str]
    ceilings: dict[str, float]
    outcomes: list[Outcome] = field(default_factory=list)

    def join(self, again: Iterable[Outcome]) -> None:
        """Add the rounds of cases that were measured again to theirs."""
        places = {outcome.case: index for index, outcome in enumerate(self.outcomes)}
        for outcome in again:
            index = places[outcome.case]
            self.outcomes[index] = self.outcomes[index].joined(outcome)

    def write(self, path: Path) -> None:
        """As JSON: every round, and what follows from them."""
        content = {
            "unit": self.unit,
            "contenders": self.labels,
            "machine": self.machine,
            "ceilings": self.ceilings,
            "summary": [ratios.to_json() for ratios in summarize(self.outcomes)],
            "cases": [outcome.to_json() for outcome in self.outcomes],
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """What `write` wrote. FileError for another file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            outcomes = [Outcome.from_json(fields) for fields in content["cases"]]
            return cls(
                content["unit"], content["contenders"], content["machine"], content["ceilings"], outcomes
            )
        except (ValueError, TypeError, LookupError) as error:
            raise FileError(
                f"{path}: not what `gemmule bench --json` writes ({type(error).__name__}: {error})"
            ) from error
