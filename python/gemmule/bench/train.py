"""Training and running dense networks: where arithmetic decides, where memory does, and where the cost of a
step does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .harness import Contender
from .outcome import OURS, OURS_BF16, Case, Statistic, count_threads
from .tasks import Infer, Task, Train, idx_samples

_MNIST = (784, 256, 128, 10)
_MNIST_SAMPLES = 60_000
_MNIST_BATCHES = (16, 64, 256, 1024)
_INFERENCE_BATCHES = (1, 32, 256, 1024)
_MEMORY_BATCH = 64  # of the cases whose peak is measured unless all are

# 8 observations, 4 actions: LunarLander's. As much of it as a rollout has, for 10 epochs: 640 updates.
_POLICY = (8, 64, 64, 4)
_POLICY_SAMPLES, _POLICY_EPOCHS = 2048, 10

# Four hidden layers of 2048: 67 MB of weights, 189 GFLOP per epoch of 8 batches.
_WIDE = (2048, 2048, 2048, 2048, 2048, 10)
_WIDE_SAMPLES = 2048

_LEARNING_RATES = {
    "mnist": {"sgd": 0.1, "momentum": 0.01, "adam": 1e-3},
    "regression": {"sgd": 0.01, "momentum": 0.001, "adam": 0.01},
    "policy": {"sgd": 0.05, "momentum": 0.005, "adam": 1e-3},
    "wide": {"sgd": 0.01, "momentum": 0.001, "adam": 1e-4},
}
_OPTIMIZERS = {"mnist": ("sgd", "momentum", "adam"), "small": ("sgd", "adam"), "wide": ("sgd",)}


@dataclass(frozen=True)
class Choice:
    """What is asked for on the command line; None is the default of each set. `quick`: fewer samples, and the
    first optimizer and the two middle batches of each set alone."""

    optimizers: Sequence[str] | None = None
    batches: Sequence[int] | None = None
    data_dir: Path | None = None
    quick: bool = False


def contenders(peer_python: str) -> list[Contender]:
    """gemmule in this interpreter, the peers in theirs."""
    return [
        Contender(OURS, "ours"),
        Contender(OURS_BF16, "ours_bf16", takes=_is_wide),
        Contender("PyTorch", "torch_eager", peer_python),
        Contender("PyTorch fused", "torch_fused", peer_python, takes=_is_training),
        Contender("torch.compile", "torch_compiled", peer_python),
        Contender("JAX", "jax_scan", peer_python),
        Contender("scikit-learn", "sklearn_mlp", peer_python, takes=_is_training),
        Contender("ONNX Runtime", "onnx_runtime", peer_python, takes=_is_inference),
    ]


def cases(name: str, choice: Choice, threads: Iterable[int], statistic: Statistic) -> list[Case]:
    """Of one of TRAINING_SETS, per number of threads. FileNotFoundError where `data_dir` has no MNIST."""
    make = {"mnist": _mnist, "small": _small, "wide": _wide, "inference": _inference}[name]
    return [
        Case(f"{group}, {count_threads(count)}", label, task, statistic, name)
        for count in threads
        for group, label, task in make(choice, count)
    ]


def measures_memory(case: Case) -> bool:
    """Whether it is one of those whose peak memory is measured by default: the MNIST epochs at batch 64."""
    task = case.task
    return case.shape_set == "mnist" and isinstance(task, Train) and task.batch == _MEMORY_BATCH


_Row = tuple[str, str, Task]  # group, label, task


def _mnist(choice: Choice, threads: int) -> list[_Row]:
    samples = _MNIST_SAMPLES if choice.data_dir is None else idx_samples(choice.data_dir)
    if choice.quick and choice.data_dir is None:
        samples //= 20
    return [
        (
            f"MNIST epoch, {optimizer}",
            f"batch {batch}",
            Train(
                sizes=_MNIST,
                samples=samples,
                batch=batch,
                epochs=1,
                loss="cross_entropy",
                optimizer=optimizer,
                lr=_LEARNING_RATES["mnist"][optimizer],
                threads=threads,
                data_dir=None if choice.data_dir is None else str(choice.data_dir.resolve()),
            ),
        )
        for optimizer in _optimizers("mnist", choice)
        for batch in _batches(_MNIST_BATCHES, choice)
    ]


def _small(choice: Choice, threads: int) -> list[_Row]:
    rows: list[_Row] = []
    for optimizer in _optimizers("small", choice):
        regression = Train(
            sizes=(2, 10, 1),
            samples=200,
            batch=200,
            epochs=200,
            loss="mse",
            optimizer=optimizer,
            lr=_LEARNING_RATES["regression"][optimizer],
            threads=threads,
        )
        policy = Train(
            sizes=_POLICY,
            samples=_POLICY_SAMPLES,
            batch=32,
            epochs=_POLICY_EPOCHS,
            loss="cross_entropy",
            optimizer=optimizer,
            lr=_LEARNING_RATES["policy"][optimizer],
            threads=threads,
        )
        rows += [
            (f"small networks, {optimizer}", "2-10-1, 200 steps", regression),
            (f"small networks, {optimizer}", "8-64-64-4, 640 steps", policy),
        ]
    return rows


def _wide(choice: Choice, threads: int) -> list[_Row]:
    return [
        (
            f"4 x 2048, {optimizer}",
            "batch 256",
            Train(
                sizes=_WIDE,
                samples=_WIDE_SAMPLES // 8 if choice.quick else _WIDE_SAMPLES,
                batch=256,
                epochs=1,
                loss="cross_entropy",
                optimizer=optimizer,
                lr=_LEARNING_RATES["wide"][optimizer],
                threads=threads,
            ),
        )
        for optimizer in _optimizers("wide", choice)
    ]


def _inference(choice: Choice, threads: int) -> list[_Row]:
    return [
        ("784-256-128-10, inference", f"batch {batch}", Infer(_MNIST, batch, threads))
        for batch in _batches(_INFERENCE_BATCHES, choice)
    ]


def _optimizers(name: str, choice: Choice) -> Sequence[str]:
    chosen = choice.optimizers or _OPTIMIZERS[name]
    return chosen if choice.optimizers or not choice.quick else chosen[:1]


def _batches(default: Sequence[int], choice: Choice) -> Sequence[int]:
    return choice.batches or (default[1:3] if choice.quick else default)


def _is_training(task: Task) -> bool:
    return isinstance(task, Train)


def _is_wide(task: Task) -> bool:
    return isinstance(task, Train) and task.sizes == _WIDE


def _is_inference(task: Task) -> bool:
    return isinstance(task, Infer)
