"""Contenders take turns, each in its own process while the others sleep in a read of their pipe.

Worker threads of one library spin for a while after its call and would steal the cores of the next: nobody
shares a process, and a pause lets the spinners fall asleep before the next turn.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from .tasks import Task, to_json

ROOT = Path(__file__).resolve().parent.parent
OURS = "gemmule"
Statistic = Literal["best", "median"]

# OpenBLAS threads spin 2^26 ticks of the time-stamp counter (26 ms at 2.6 GHz) after a call, libgomp's less.
SETTLE_SECONDS = 0.05


@dataclass(frozen=True)
class Contender:
    """Who runs: a module of `bench.contenders`, its interpreter, and what it adds to the environment."""

    label: str
    module: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


CEILING = Contender("FMA ceiling", "ceiling")


@dataclass(frozen=True)
class Case:
    """One problem: `group` and `label` place it in table and picture, `statistic` condenses its rounds."""

    group: str
    label: str
    task: Task
    statistic: Statistic

    @property
    def name(self) -> str:
        """Group and label."""
        return f"{self.group}: {self.label}"


@dataclass(frozen=True)
class Outcome:
    """What the contenders did on one case."""

    case: Case
    samples: dict[str, list[dict[str, float]]]
    ceiling_rounds: list[float]
    versions: dict[str, str]
    skipped: dict[str, str]

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
        """FLOP/s: the highest measured in these rounds, by the FMA chains or by any contender."""
        if not self.ceiling_rounds:
            return None
        fastest = min(sample["best"] for samples in self.samples.values() for sample in samples)
        return max(*self.ceiling_rounds, self.case.task.flops / fastest)

    @property
    def best_peer(self) -> str | None:
        """The fastest contender that is not gemmule."""
        peers = [label for label in self.samples if label != OURS]
        return max(peers, key=lambda label: self.rate(label) or 0.0, default=None)

    @property
    def ratio(self) -> float | None:
        """gemmule's speed over the best peer's."""
        ours, peer = self.rate(OURS), self.best_peer
        theirs = None if peer is None else self.rate(peer)
        return None if ours is None or theirs is None else ours / theirs

    @property
    def share(self) -> float | None:
        """gemmule's speed over the ceiling."""
        ours, ceiling = self.rate(OURS), self.ceiling
        return None if ours is None or ceiling is None else ours / ceiling


def count_threads(count: int) -> str:
    """In words: "1 thread", "2 threads"."""
    return f"{count} thread" if count == 1 else f"{count} threads"


class ContenderError(Exception):
    """A contender cannot go on, with the reason."""


class Worker:
    """A contender's process, seen from the parent. `threads` is fixed for its life."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        environment = os.environ | {
            name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        if contender.python != sys.executable:
            environment.pop("PYTHONPATH", None)  # it names packages of another interpreter
        self._process = subprocess.Popen(
            [contender.python, "-m", "bench.worker", contender.module],
            cwd=ROOT,
            env={**environment, **contender.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._process.communicate('{"quit": true}\n', timeout=5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass  # dead or stuck: the kill below does for both
        finally:
            self._process.kill()
            self._process.wait()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send one message and wait for its answer. Raises ContenderError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContenderError(f"its process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        for reason in ("absent", "error"):
            if reason in reply:
                raise ContenderError(reply[reason])
        return reply


def compete(
    cases: Sequence[Case], contenders: Sequence[Contender], rounds: int, seconds: float
) -> Iterator[Outcome]:
    """Measure the cases one by one. `cases` with equal numbers of threads in a row share their processes."""
    for threads, batch in groupby(cases, key=lambda case: case.task.threads):
        with ExitStack() as stack:
            everyone = [*contenders, CEILING]
            workers = [stack.enter_context(Worker(contender, threads)) for contender in everyone]
            for case in batch:
                yield _measure(case, workers, rounds, seconds)


def _measure(case: Case, workers: Sequence[Worker], rounds: int, seconds: float) -> Outcome:
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    samples: dict[str, list[dict[str, float]]] = {}
    for worker in workers:
        label = worker.contender.label
        try:
            versions[label] = worker.ask({"setup": to_json(case.task)})["version"]
            samples[label] = []
        except ContenderError as reason:
            skipped[label] = str(reason)
    for _ in range(rounds):
        for worker in workers:
            label = worker.contender.label
            if label in skipped:
                continue
            time.sleep(SETTLE_SECONDS)
            try:
                samples[label].append(worker.ask({"round": seconds}))
            except ContenderError as reason:
                skipped[label] = str(reason)
                del samples[label]
    ceiling_rounds = [sample["flops_per_second"] for sample in samples.pop(CEILING.label, [])]
    return Outcome(case, samples, ceiling_rounds, versions, skipped)
