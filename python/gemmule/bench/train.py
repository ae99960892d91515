"""Training dense networks: one where arithmetic decides, and one where the cost per step does."""

from collections.abc import Sequence
from pathlib import Path

from .harness import Contender
from .outcome import OURS, Case, Statistic, count_threads
from .tasks import Train, idx_samples

_LEARNING_RATES = {"mnist": {"sgd": 0.1, "adam": 1e-3}, "regression": {"sgd": 0.01, "adam": 0.01}}


def contenders(peer_python: str) -> list[Contender]:
    """gemmule in this interpreter, the peers in theirs."""
    return [
        Contender(OURS, "ours"),
        Contender("PyTorch", "torch_eager", peer_python),
        Contender("PyTorch fused", "torch_fused", peer_python),
    ]


def cases(optimizer: str, threads: Sequence[int], data_dir: Path | None, statistic: Statistic) -> list[Case]:
    """An MNIST-shaped epoch and 200 full-batch steps of a regression, per number of threads."""
    samples = 60_000 if data_dir is None else idx_samples(data_dir)
    folder = None if data_dir is None else str(data_dir.resolve())
    result = []
    for count in threads:
        group = f"{optimizer}, {count_threads(count)}"
        mnist = Train(
            sizes=(784, 256, 128, 10),
            samples=samples,
            batch=64,
            epochs=1,
            loss="cross_entropy",
            optimizer=optimizer,
            lr=_LEARNING_RATES["mnist"][optimizer],
            threads=count,
            data_dir=folder,
        )
        regression = Train(
            sizes=(2, 10, 1),
            samples=200,
            batch=200,
            epochs=200,
            loss="mse",
            optimizer=optimizer,
            lr=_LEARNING_RATES["regression"][optimizer],
            threads=count,
        )
        result += [
            Case(f"MNIST epoch, {group}", "784-256-128-10", mnist, statistic),
            Case(f"200 steps, {group}", "2-10-1", regression, statistic),
        ]
    return result
