"""What is measured: the problems, their data and their FLOPs. Here those of matrices and dense networks;
`layer_tasks` and `cnn_tasks` have those of images. Workers import this; it needs NumPy alone."""

import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from .cnn_tasks import InferCnn, TrainCnn
from .layer_tasks import Conv, Pool
from .norm_tasks import Norm

Array = NDArray[Any]

TRAINING_SETS = ("mnist", "small", "wide", "inference")
LAYER_SETS = ("conv", "pool", "norm")
DIRECTIONS = ("forward", "backward")
CNN_SETS = ("training", "inference")
OPTIMIZERS = ("sgd", "momentum", "adam")
MOMENTUM = 0.9  # of the optimizer called so


@dataclass(frozen=True)
class Gemm:
    """C = A B on normal deviates. A transposed operand is contiguous in memory the other way round, and is
    handed to every contender as that view."""

    kind: ClassVar[str] = "gemm"

    m: int
    n: int
    k: int
    dtype: str
    threads: int
    trans_a: bool = False
    trans_b: bool = False
    precision: str = "full"  # or bf16: operands rounded to it

    @property
    def multiply_adds(self) -> int:
        """M N K."""
        return self.m * self.n * self.k

    @property
    def flops(self) -> int:
        """2 M N K: one multiplication and one addition per term."""
        return 2 * self.multiply_adds

    @property
    def bytes(self) -> int:
        """Of A, B and C."""
        return np.dtype(self.dtype).itemsize * (self.m * self.k + self.k * self.n + self.m * self.n)

    def operands(self) -> tuple[Array, Array, Array]:
        """A (M, K), B (K, N) and a C (M, N) to write into, which holds NaN."""
        rng = np.random.default_rng(self.multiply_adds)

        def matrix(rows: int, cols: int, transposed: bool) -> Array:
            shape = (cols, rows) if transposed else (rows, cols)
            data = rng.standard_normal(shape).astype(self.dtype)
            return data.T if transposed else data

        a = matrix(self.m, self.k, self.trans_a)
        b = matrix(self.k, self.n, self.trans_b)
        return a, b, np.full((self.m, self.n), np.nan, self.dtype)

    def check(self, a: Array, b: Array, c: Array) -> None:
        """Raise ArithmeticError unless the first, middle and last row of C agree with float64:
        |error| <= 2 K eps |A| |B|, and with operands and perhaps C in bfloat16, u = 2^-8, 4 u |A| |B| more.

        The factor 2 covers the reference, which for float64 inputs is rounded as well.
        """
        picked = [0, self.m // 2, self.m - 1]
        rows = a[picked].astype(np.float64)
        columns = b.astype(np.float64)
        relative = 2 * self.k * np.finfo(a.dtype).eps + (4 * 2.0**-8 if self.precision == "bf16" else 0)
        bound = relative * (np.abs(rows) @ np.abs(columns))
        if not np.all(np.abs(c[picked] - rows @ columns) <= bound):
            raise ArithmeticError(f"wrong product at {self.m} x {self.n} x {self.k}, {self.dtype}")


@dataclass(frozen=True)
class Train:
    """Epochs of a dense ReLU network over `samples` rows, in batches, shuffled if there are several. Who is
    called again goes on from where it was, its optimizer's state included."""

    kind: ClassVar[str] = "train"

    sizes: tuple[int, ...]
    samples: int
    batch: int
    epochs: int
    loss: str
    optimizer: str
    lr: float
    threads: int
    data_dir: str | None = None
    dtype: str = "float32"

    @property
    def shuffle(self) -> bool:
        """Whether there is more than one batch."""
        return self.batch < self.samples

    @property
    def momentum(self) -> float:
        """Of plain gradient descent."""
        return MOMENTUM if self.optimizer == "momentum" else 0.0

    @property
    def flops(self) -> int:
        """Matrix products alone: Z = X W^T, dW = dZ^T X, dX = dZ W, 2 n_in n_out each per sample.

        The first layer needs no dX. Bias, activation, loss and update are left out, for all contenders alike.
        """
        layers = _layer_flops(self.sizes)
        return (3 * sum(layers) - layers[0]) * self.samples * self.epochs

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.samples * self.sizes[0]

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """X (N, n_in) float32; y (N,) int64 labels for the cross entropy, (N, n_out) float32 for the MSE."""
        if self.data_dir is not None:
            return _idx_training_set(Path(self.data_dir))
        return _training_set(self.samples, self.sizes[0], self.sizes[-1], self.loss)

    def weights(self) -> list[tuple[Array, Array]]:
        """What every contender starts from: W (n_out, n_in) and b (n_out,) of each layer."""
        return _weights(self.sizes)


@dataclass(frozen=True)
class Infer:
    """The raw outputs of a dense ReLU network for one batch."""

    kind: ClassVar[str] = "infer"

    sizes: tuple[int, ...]
    batch: int
    threads: int
    dtype: str = "float32"

    @property
    def flops(self) -> int:
        """2 n_in n_out per layer and sample."""
        return sum(_layer_flops(self.sizes)) * self.batch

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.batch * self.sizes[0]

    @cached_property
    def data(self) -> tuple[Array]:
        """X (batch, n_in), normal deviates."""
        return (np.random.default_rng(0).standard_normal((self.batch, self.sizes[0]), dtype=np.float32),)

    def weights(self) -> list[tuple[Array, Array]]:
        """W (n_out, n_in) and b (n_out,) of each layer."""
        return _weights(self.sizes)

    def check(self, outputs: Array) -> None:
        """Raise ArithmeticError unless every row agrees with float64 within the bound of its 2-norm.

        A layer of K inputs adds at most (K + 1) eps (|W| |h| + |b|) to the error of h times ||W||; relu
        enlarges nothing (Higham, Accuracy and Stability, 3.5).
        """
        if outputs.shape != (self.batch, self.sizes[-1]):
            raise ArithmeticError(f"outputs have shape {outputs.shape}, not {(self.batch, self.sizes[-1])}")
        h: Array = self.data[0].astype(np.float64)
        bound = np.zeros(self.batch)
        for index, (weight, bias) in enumerate(self.weights()):
            if index:
                h = np.maximum(h, 0)
            magnitude = np.abs(h) @ np.abs(weight.T) + np.abs(bias)
            rounding = (weight.shape[1] + 1) * np.finfo(np.float32).eps * np.linalg.norm(magnitude, axis=1)
            bound = np.linalg.norm(weight, 2) * bound + rounding
            h = h @ weight.T + bias
        error = np.linalg.norm(outputs - h, axis=1)
        if not np.all(error <= bound):
            raise ArithmeticError(f"outputs are off by up to {error.max():.3g}, above {bound.min():.3g}")


Task = Gemm | Train | Infer | Conv | Pool | Norm | TrainCnn | InferCnn
NetworkTask = Train | Infer


def to_json(task: Task) -> dict[str, Any]:
    """Its fields and its kind."""
    return {"kind": task.kind, **asdict(task)}


def from_json(fields: Mapping[str, Any]) -> Task:
    """The task that `to_json` described."""
    kinds: dict[str, Callable[..., Task]] = {kind.kind: kind for kind in get_args(Task)}
    values = {name: value for name, value in fields.items() if name != "kind"}
    if "sizes" in values:
        values["sizes"] = tuple(values["sizes"])  # JSON knows lists alone
    return kinds[fields["kind"]](**values)


def idx_samples(folder: Path) -> int:
    """The number of training images in an IDX folder."""
    return len(_read_idx(folder, "train-labels-idx1-ubyte"))


def _layer_flops(sizes: tuple[int, ...]) -> list[int]:
    """Of Z = X W^T, per sample."""
    return [2 * n_in * n_out for n_in, n_out in pairwise(sizes)]


def _weights(sizes: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """He's normal deviates, and biases that are not zero, so that who leaves one out is found."""
    rng = np.random.default_rng(1)
    return [
        (
            rng.standard_normal((n_out, n_in), dtype=np.float32) * np.float32(math.sqrt(2 / n_in)),
            rng.standard_normal(n_out, dtype=np.float32) * np.float32(0.1),
        )
        for n_in, n_out in pairwise(sizes)
    ]


@lru_cache(maxsize=1)  # a worker plays many tasks on the same data
def _training_set(samples: int, n_in: int, n_out: int, loss: str) -> tuple[Array, Array]:
    """Normal deviates, and what a random linear teacher says of them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, n_in), dtype=np.float32)
    teacher = rng.standard_normal((n_in, n_out), dtype=np.float32)
    y = x @ teacher
    if loss == "cross_entropy":
        return x, y.argmax(axis=1)
    return x, y + 0.1 * rng.standard_normal(y.shape, dtype=np.float32)


@lru_cache(maxsize=1)
def _idx_training_set(folder: Path) -> tuple[Array, Array]:
    images = _read_idx(folder, "train-images-idx3-ubyte")
    labels = _read_idx(folder, "train-labels-idx1-ubyte")
    return images.reshape(len(images), -1) / np.float32(255), labels.astype(np.int64)


def _read_idx(folder: Path, name: str) -> Array:
    """An IDX file of bytes, gzipped or not: two zeros, the type (8), the rank, big-endian dims, data."""
    path = folder / name
    raw = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    rank = raw[3]
    dims = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(dims)
