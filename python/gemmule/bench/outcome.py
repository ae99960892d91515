"""What is asked of the contenders, and what they did."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .cnn_tasks import InferCnn, TrainCnn
from .layer_tasks import Conv
from .tasks import Task, from_json, to_json

OURS = "gemmule"
OURS_BF16 = "gemmule bf16"  # beside itself in float32: no peer, and not below float32's ceiling
OURS_STRICT = "gemmule strict"  # beside itself with Winograd's transforms
_OURS = (OURS, OURS_BF16, OURS_STRICT)
Statistic = Literal["best", "median"]


def count_threads(count: int) -> str:
    """In words: "1 thread", "2 threads"."""
    return f"{count} thread" if count == 1 else f"{count} threads"


@dataclass(frozen=True)
class Case:
    """One problem: `group` and `label` place it in table and picture, `statistic` condenses its rounds,
    `shape_set` says which of the sets it is from, if any."""

    group: str
    label: str
    task: Task
    statistic: Statistic
    shape_set: str = ""

    @property
    def name(self) -> str:
        """Group and label."""
        return f"{self.group}: {self.label}"


@dataclass(frozen=True)
class Outcome:
    """Every contender's sample of every round on one case, in dictionaries by their labels. Of trainings, the
    losses of the first calls. `variants`: what a contender that has several ways chose. `memory`: the peak,
    in bytes, above Python with NumPy and the data."""

    case: Case
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    ceiling_rounds: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def seconds(self, label: str) -> float | None:
        """Per call: the fastest of all rounds, or the median of the rounds' medians. None if skipped."""
        samples = self.samples.get(label)
        if not samples:
            return None
        condense = min if self.case.statistic == "best" else statistics.median
        return float(condense(sample[self.case.statistic] for sample in samples))

    def rate(self, label: str) -> float | None:
        """FLOP/s."""
        seconds = self.seconds(label)
        return None if seconds is None else self.case.task.flops / seconds

    @property
    def ceiling(self) -> float | None:
        """FLOP/s: the highest measured in these rounds, by the FMA chains or by any contender but those that
        need fewer multiplications than are counted."""
        if not self.ceiling_rounds:
            return None
        rates = [
            self.case.task.flops / sample["best"]
            for label, samples in self.samples.items()
            for sample in samples
            if label != OURS_BF16 and not (label == OURS and self._transformed)
        ]
        return max([*self.ceiling_rounds, *rates])

    @property
    def _transformed(self) -> bool:
        """Whether gemmule may have convolved by Winograd's transforms."""
        return isinstance(self.case.task, Conv | TrainCnn | InferCnn)

    @property
    def best_peer(self) -> str | None:
        """The fastest contender that is not gemmule."""
        peers = [label for label in self.samples if label not in _OURS]
        return max(peers, key=lambda label: self.rate(label) or 0.0, default=None)

    def share_of(self, label: str) -> float | None:
        """gemmule's time over this contender's."""
        ours, theirs = self.seconds(OURS), self.seconds(label)
        return None if ours is None or theirs is None else ours / theirs

    @property
    def ratio(self) -> float | None:
        """gemmule's speed over the best peer's."""
        return self.ratio_of(OURS)

    @property
    def strict_ratio(self) -> float | None:
        """The same without Winograd's transforms, where that was measured."""
        return self.ratio_of(OURS_STRICT)

    def ratio_of(self, label: str) -> float | None:
        """A contender's speed over the best peer's."""
        ours, peer = self.rate(label), self.best_peer
        theirs = None if peer is None else self.rate(peer)
        return None if ours is None or theirs is None else ours / theirs

    @property
    def share(self) -> float | None:
        """gemmule's speed over the ceiling."""
        ours, ceiling = self.rate(OURS), self.ceiling
        return None if ours is None or ceiling is None else ours / ceiling

    def joined(self, later: "Outcome") -> "Outcome":
        """The rounds of both: whoever was measured again has had more of them, the peers as many as
        gemmule."""
        samples = {label: [*rounds, *later.samples.get(label, [])] for label, rounds in self.samples.items()}
        return Outcome(
            self.case,
            samples,
            [*self.ceiling_rounds, *later.ceiling_rounds],
            self.versions,
            {**self.skipped, **later.skipped},
            self.losses,
            self.variants,
            self.memory,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything measured, and what follows from it."""
        return {
            "group": self.case.group,
            "label": self.case.label,
            "shape_set": self.case.shape_set,
            "task": to_json(self.case.task),
            "flops": self.case.task.flops,
            "statistic": self.case.statistic,
            "rounds": self.samples,
            "seconds": {label: self.seconds(label) for label in self.samples},
            "ceiling_rounds": self.ceiling_rounds,
            "ceiling": self.ceiling,
            "share_of_ceiling": self.share,
            "best_peer": self.best_peer,
            "ratio_to_best_peer": self.ratio,
            "time_over_theirs": {label: self.share_of(label) for label in self.samples if label != OURS},
            "versions": self.versions,
            "skipped": self.skipped,
            "losses": self.losses,
            "variants": self.variants,
            "memory": self.memory,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Outcome":
        """The outcome that `to_json` described."""
        task = from_json(fields["task"])
        case = Case(fields["group"], fields["label"], task, fields["statistic"], fields["shape_set"])
        later = (fields.get(name, {}) for name in ("losses", "variants", "memory"))  # not in the first files
        return cls(
            case, fields["rounds"], fields["ceiling_rounds"], fields["versions"], fields["skipped"], *later
        )
