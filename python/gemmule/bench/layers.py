"""Single layers on images: convolutions, pools and normalizations of the networks in use, forward and
backward."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .harness import Contender
from .layer_tasks import Conv, Pool
from .norm_tasks import Norm
from .outcome import OURS, OURS_STRICT, Case, Statistic, count_threads
from .tasks import Task


class _Shape(NamedTuple):
    """Of images (batch, size, size, channels) and filters (filters, kernel, kernel, channels / groups)."""

    batch: int
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int
    padding: int
    groups: int = 1

    @property
    def label(self) -> str:
        """As in "32: 28x28x128-128, 3x3"."""
        stride = f" / {self.stride}" if self.stride > 1 else ""
        depthwise = ", depthwise" if self.groups > 1 else ""
        images = f"{self.batch}: {self.size}x{self.size}x{self.channels}"
        return f"{images}-{self.filters}, {self.kernel}x{self.kernel}{stride}{depthwise}"


_SHAPES = (
    _Shape(64, 1, 28, 32, 3, 1, 0),  # both of a network for MNIST
    _Shape(64, 32, 26, 64, 3, 1, 0),
    _Shape(32, 64, 32, 64, 3, 1, 1),
    _Shape(32, 128, 16, 128, 3, 1, 1),
    _Shape(32, 256, 8, 256, 3, 1, 1),
    _Shape(32, 64, 32, 128, 1, 1, 0),
    _Shape(8, 3, 224, 64, 7, 2, 3),  # the first layer of a residual network, and three that follow
    _Shape(32, 64, 56, 64, 3, 1, 1),
    _Shape(32, 256, 14, 256, 3, 1, 1),
    _Shape(32, 512, 7, 512, 3, 1, 1),
    _Shape(32, 128, 28, 128, 3, 1, 1, groups=128),
    _Shape(32, 64, 32, 128, 3, 2, 1),
)
_QUICK = (0, 3, 10)  # few input channels, many, depthwise

_POOLED = (64, 64, 24, 2)  # batch, channels, size, kernel

_NORMS = (  # mode, batch, size, channels
    ("batch", 128, 32, 16),  # of ResNet-20, ResNet-18 and a transformer
    ("batch", 128, 16, 32),
    ("batch", 32, 56, 64),
    ("layer", 1024, 1, 768),
)


def contenders(peer_python: str) -> list[Contender]:
    """gemmule in this interpreter, the peers in theirs."""
    return [
        Contender(OURS, "ours_images"),
        Contender(OURS_STRICT, "ours_strict", takes=_may_transform),
        Contender("PyTorch NHWC", "torch_nhwc", peer_python),
        Contender("PyTorch NCHW", "torch_nchw", peer_python),
        Contender("ONNX Runtime", "onnx_images", peer_python, takes=_is_forward),
    ]


def cases(
    names: Sequence[str], directions: Sequence[str], threads: Iterable[int], statistic: Statistic, quick: bool
) -> list[Case]:
    """Of each of LAYER_SETS, per number of threads and of DIRECTIONS."""
    make = {"conv": _convs, "pool": _pools, "norm": _norms}
    return [
        Case(f"{name} {direction}, {count_threads(count)}", label, task, statistic, f"{name} {direction}")
        for count in threads
        for name in names
        for direction in directions
        for label, task in make[name](direction == "backward", count, quick)
    ]


def _convs(backward: bool, threads: int, quick: bool) -> list[tuple[str, Task]]:
    shapes = [_SHAPES[index] for index in _QUICK] if quick else _SHAPES
    return [(shape.label, Conv(*shape, backward, threads)) for shape in shapes]


def _pools(backward: bool, threads: int, quick: bool) -> list[tuple[str, Task]]:
    batch, channels, size, kernel = _POOLED
    label = f"{batch}: {size}x{size}x{channels}, {kernel}x{kernel}"
    modes = ("max",) if quick else ("max", "avg")
    return [
        (f"{mode} {label}", Pool(mode, batch, channels, size, kernel, backward, threads)) for mode in modes
    ]


def _norms(backward: bool, threads: int, quick: bool) -> list[tuple[str, Task]]:
    made: list[tuple[str, Task]] = []
    for mode, batch, size, channels in _NORMS[:1] if quick else _NORMS:
        shape = f"{batch}: {size}x{size}x{channels}" if mode == "batch" else f"{batch}x{channels}"
        made.append((f"{mode} {shape}", Norm(mode, batch, size, channels, backward, threads)))
    return made


def _is_forward(task: Task) -> bool:
    return isinstance(task, Conv | Pool) and not task.backward


def _may_transform(task: Task) -> bool:
    """Whether Winograd's transforms may take part in it."""
    return isinstance(task, Conv) and task.kernel == 3 and task.stride == 1 and task.groups == 1
