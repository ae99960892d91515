"""Training and running convolutional networks: those of the table in `networks`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .cnn_tasks import CnnTask, InferCnn, TrainCnn
from .harness import Contender
from .networks import NETWORKS
from .outcome import OURS, Case, Statistic, count_threads
from .tasks import Task


@dataclass(frozen=True)
class Choice:
    """What is asked for on the command line; None is all networks, and the batch of each. `quick`: a tenth of
    the samples."""

    networks: Sequence[str] | None = None
    batches: Sequence[int] | None = None
    quick: bool = False


def contenders(peer_python: str) -> list[Contender]:
    """gemmule in this interpreter, the peers in theirs."""
    return [
        Contender(OURS, "ours_images"),
        Contender("PyTorch NHWC", "torch_nhwc", peer_python),
        Contender("PyTorch NCHW", "torch_nchw", peer_python),
        Contender("compiled NHWC", "torch_compiled_nhwc", peer_python),
        Contender("compiled NCHW", "torch_compiled_nchw", peer_python),
        Contender("JAX", "jax_cnn", peer_python),
        Contender("ONNX Runtime", "onnx_images", peer_python, takes=_is_inference),
    ]


def cases(names: Sequence[str], choice: Choice, threads: Iterable[int], statistic: Statistic) -> list[Case]:
    """Of each of CNN_SETS, per number of threads."""
    make = {"training": _training, "inference": _inference}
    return [
        Case(
            f"cnn {name}, {count_threads(count)}",
            f"{network}, batch {batch}",
            make[name](network, batch, count, choice),
            statistic,
            f"cnn {name}",
        )
        for count in threads
        for name in names
        for network in choice.networks or NETWORKS
        for batch in choice.batches or [NETWORKS[network].batch]
    ]


def work(case: Case) -> str:
    """A line on the FLOPs of a case."""
    task = case.task
    assert isinstance(task, CnnTask)
    kind = "training" if isinstance(task, TrainCnn) else "inference"
    return f"{task.network + ', ' + kind + ':':<39} {task.flops / task.images / 1e6:.4g} MFLOP per image"


def measures_memory(case: Case) -> bool:
    """Whether its peak memory is measured by default: that of training."""
    return isinstance(case.task, TrainCnn)


def _training(network: str, batch: int, threads: int, choice: Choice) -> Task:
    made = NETWORKS[network]
    samples = made.samples // 10 if choice.quick else made.samples
    return TrainCnn(network, max(samples, batch), batch, 1, made.lr, threads)


def _inference(network: str, batch: int, threads: int, _: Choice) -> Task:
    return InferCnn(network, batch, threads)


def _is_inference(task: Task) -> bool:
    return isinstance(task, InferCnn)
