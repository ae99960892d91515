"""Contenders take turns, each in its own process while the others sleep in a read of their pipe.

Worker threads of one library spin for a while after its call and would steal the cores of the next: nobody
shares a process, and a pause lets the spinners fall asleep before the next turn.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from .outcome import OURS, Case, Outcome
from .tasks import Task, to_json

# OpenBLAS threads spin 2^26 ticks of the time-stamp counter (26 ms at 2.6 GHz) after a call, libgomp's less.
SETTLE_SECONDS = 0.05

# Cases that share a turn, and with it that pause: as many as are played in a fraction of a second, and as
# can lie in the memory of every contender at once.
BLOCK_CASES = 24
BLOCK_BYTES = 64 << 20

# How far a peer's loss may lie from gemmule's after as many calls: relative to it, and to the first. Two
# orders of the same samples differ by a percent or two; an epoch left out, by more than this at the start.
LOSS_TOLERANCE = (0.1, 0.05)


@dataclass(frozen=True)
class Contender:
    """Who runs: a module of `contenders`, its interpreter, what it adds to the environment, and which tasks
    it takes."""

    label: str
    module: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    takes: Callable[[Task], bool] = lambda task: True


CEILING = Contender("FMA ceiling", "ceiling")


class ContenderError(Exception):
    """A contender cannot go on, with the reason."""


class Worker:
    """A contender's process, seen from the parent. `threads` is fixed for its life."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self._settle = SETTLE_SECONDS if threads > 1 else 0.0
        environment = os.environ | {
            name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        if contender.python != sys.executable:
            environment.pop("PYTHONPATH", None)  # it names packages of another interpreter
        self._process = subprocess.Popen(
            [contender.python, str(Path(__file__).with_name("start_worker.py")), contender.module],
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
        """Send one message, once the others' threads sleep, and wait for its answer. Raises
        ContenderError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        time.sleep(self._settle)
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContenderError(f"its process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "absent" in reply:
            raise ContenderError(reply["absent"])
        return reply


def compete(
    cases: Sequence[Case], contenders: Sequence[Contender], rounds: int, seconds: float
) -> Iterator[Outcome]:
    """Measure the cases in order. `cases` with equal numbers of threads in a row share their processes."""
    for threads, same in groupby(cases, key=lambda case: case.task.threads):
        with ExitStack() as stack:
            everyone = [*contenders, CEILING]
            workers = [stack.enter_context(Worker(contender, threads)) for contender in everyone]
            for block in blocks(same):
                yield from _measure(block, workers, rounds, seconds)


def blocks(cases: Iterator[Case]) -> Iterator[list[Case]]:
    """The cases in order, in lists that end where BLOCK_CASES or BLOCK_BYTES are reached."""
    block: list[Case] = []
    for case in cases:
        block.append(case)
        if len(block) == BLOCK_CASES or sum(case.task.bytes for case in block) >= BLOCK_BYTES:
            yield block
            block = []
    if block:
        yield block


def _measure(block: list[Case], workers: Sequence[Worker], rounds: int, seconds: float) -> list[Outcome]:
    outcomes = [Outcome(case) for case in block]
    # Each worker's outcomes, in the order of the tasks that it was given.
    shares = {
        worker: [outcome for outcome in outcomes if worker.contender.takes(outcome.case.task)]
        for worker in workers
    }
    for worker, share in shares.items():
        if share:
            _set_up(worker, share)
    for _ in range(rounds):
        for worker, share in shares.items():
            if any(worker.contender.label in outcome.samples for outcome in share):
                _take_turn(worker, share, seconds)
    for outcome in outcomes:
        samples = outcome.samples.pop(CEILING.label, [])
        outcome.ceiling_rounds.extend(sample["flops_per_second"] for sample in samples)
        compare_losses(outcome)
    return outcomes


def compare_losses(outcome: Outcome) -> None:
    """Take out whoever's losses are not near gemmule's: all began with the same weights and have trained on
    the same samples as often."""
    ours = outcome.losses.get(OURS)
    if not ours:
        return
    relative, of_first = LOSS_TOLERANCE
    for label, losses in outcome.losses.items():
        pairs = zip(losses, ours, strict=False)
        for calls, (loss, reference) in enumerate(pairs, start=1):
            if not abs(loss - reference) <= relative * reference + of_first * ours[0]:
                outcome.skipped[label] = f"loss {loss:.3g} where gemmule has {reference:.3g}, call {calls}"
                outcome.samples.pop(label, None)
                break


def measure_memory(outcome: Outcome, contenders: Sequence[Contender]) -> None:
    """The peak of each contender that took part, in a process that does nothing else."""
    for contender in contenders:
        label, task = contender.label, outcome.case.task
        if label not in outcome.samples:
            continue
        with Worker(contender, task.threads) as worker:
            try:
                reply = worker.ask({"memory": to_json(task), "variant": outcome.variants.get(label)})
            except ContenderError as reason:
                outcome.skipped[f"{label}'s memory"] = str(reason)
            else:
                outcome.memory[label] = reply["bytes"]


def _set_up(worker: Worker, share: Sequence[Outcome]) -> None:
    label = worker.contender.label
    try:
        reply = worker.ask({"setup": [to_json(outcome.case.task) for outcome in share]})
    except ContenderError as reason:
        for outcome in share:
            outcome.skipped[label] = str(reason)
        return
    for outcome, error in zip(share, reply["errors"], strict=True):
        outcome.versions[label] = reply["version"]
        if error is None:
            outcome.samples[label] = []
        else:
            outcome.skipped[label] = error


def _take_turn(worker: Worker, share: Sequence[Outcome], seconds: float) -> None:
    """Play each task once. Whoever fails at one is out of it."""
    label = worker.contender.label
    try:
        samples = worker.ask({"turn": seconds})["samples"]
    except ContenderError as reason:
        samples = [{"error": str(reason)}] * len(share)
    for outcome, sample in zip(share, samples, strict=True):
        if label not in outcome.samples:
            continue
        if "error" in sample:
            outcome.skipped[label] = sample["error"]
            del outcome.samples[label]
            outcome.losses.pop(label, None)
        else:
            if "losses" in sample:
                outcome.losses[label] = sample.pop("losses")
            if "variant" in sample:
                outcome.variants[label] = sample.pop("variant")
            outcome.samples[label].append(sample)
