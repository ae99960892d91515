"""What is measured: the problems, their data and their FLOPs. Workers import this; it needs NumPy alone."""

import gzip
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    """Epochs of a dense ReLU network over `samples` rows, in batches, shuffled if there are several."""

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
    def flops(self) -> int:
        """Matrix products alone: Z = X W^T, dW = dZ^T X, dX = dZ W, 2 n_in n_out each per sample.

        The first layer needs no dX. Bias, activation, loss and update are left out, for all contenders alike.
        """
        layers = [2 * n_in * n_out for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False)]
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
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.samples, self.sizes[0]), dtype=np.float32)
        teacher = rng.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        y = x @ teacher
        if self.loss == "cross_entropy":
            return x, y.argmax(axis=1)
        return x, y + 0.1 * rng.standard_normal(y.shape, dtype=np.float32)


Task = Gemm | Train


def to_json(task: Task) -> dict[str, Any]:
    """Its fields and its kind."""
    return {"kind": task.kind, **asdict(task)}


def from_json(fields: Mapping[str, Any]) -> Task:
    """The task that `to_json` described."""
    kinds: dict[str, type[Gemm] | type[Train]] = {"gemm": Gemm, "train": Train}
    return kinds[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})


def idx_samples(folder: Path) -> int:
    """The number of training images in an IDX folder."""
    return len(_read_idx(folder, "train-labels-idx1-ubyte"))


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
