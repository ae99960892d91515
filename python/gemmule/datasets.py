"""Data to train on: handwritten digits on board, MNIST's IDX files, `.npz` archives; seeded splits of any."""

import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import real_number
from .errors import DTypeError, FileError, ShapeError

Array = NDArray[Any]
Pair = tuple[Array, Array]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_RATIO = 1032  # the most deflate can expand: a greater claim is refused before memory is taken

_X_KEYS = ("X", "x", "data", "images", "features")
_Y_KEYS = ("y", "Y", "target", "targets", "labels", "label")


def digits(*, scale: bool = True, as_images: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1,797 handwritten digits of 8 x 8 pixels: X (1797, 64) float32, y (1797,) int64.

    `scale` maps the pixels from 0..16 to 0..1; `as_images` gives X as (1797, 8, 8, 1).

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://doi.org/10.24432/C50P49, CC BY 4.0."""
    resource = resources.files(__package__) / "data" / "digits.npz"
    with np.load(io.BytesIO(resource.read_bytes()), allow_pickle=False) as archive:
        X, y = archive["X"].astype(np.float32), archive["y"].astype(np.int64)
    if scale:
        X /= 16
    return X.reshape(-1, 8, 8, 1) if as_images else X, y


def mnist(
    folder: str | os.PathLike[str], *, scale: bool = True, as_images: bool = False
) -> tuple[Pair, Pair]:
    """((X_train, y_train), (X_test, y_test)) from a folder with the four MNIST files, or others of their
    kind.

    X (N, height * width) float32, or (N, height, width, 1) with `as_images`; `scale` maps 0..255 to 0..1; y
    (N,) int64. The files are looked for as `idx_folder` does; nothing is downloaded."""

    def prepared(images: Array, labels: Array) -> Pair:
        X = images.reshape(*images.shape, 1) if as_images else images.reshape(len(images), -1)
        X = X.astype(np.float32)
        if scale:
            X /= 255
        return X, labels

    train, test = idx_folder(folder)
    return prepared(*train), prepared(*test)


# -- IDX ----------------------------------------------------------------------------------------------------


def idx_folder(folder: str | os.PathLike[str]) -> tuple[Pair, Pair]:
    """((X_train, y_train), (X_test, y_test)) as the files hold them; labels become int64.

    Looks for train-images, train-labels, t10k-images and t10k-labels, spelled `-idx3-ubyte` or `.idx3-ubyte`,
    plain or `.gz`. FileError where one is missing, malformed, or images and labels differ in number."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return _idx_pair(folder, "train"), _idx_pair(folder, "t10k")


def _idx_pair(folder: Path, prefix: str) -> Pair:
    images_path, labels_path = _find_idx(folder, prefix, "images", 3), _find_idx(folder, prefix, "labels", 1)
    images, labels = load_idx(images_path), load_idx(labels_path)
    if images.ndim < 2:
        raise FileError(f"{images_path}: images have shape {images.shape}, expected (N, height, width)")
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise FileError(
            f"{labels_path}: labels are {labels.dtype} of shape {labels.shape}, expected integers (N,)"
        )
    if len(images) != len(labels):
        raise FileError(f"{folder}: {len(images)} {prefix} images but {len(labels)} labels")
    return images, labels.astype(np.int64)


def _find_idx(folder: Path, prefix: str, what: str, ndim: int) -> Path:
    names = [f"{prefix}-{what}{mark}idx{ndim}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileError(f"{folder}: no IDX file of the {prefix} {what}; looked for {', '.join(names)}")


def load_idx(path: str | os.PathLike[str]) -> Array:
    """An IDX file, plain or gzipped (told by its content), of any of the format's six types, in native byte
    order.

        0 0 type ndim | ndim big-endian u32 sizes | row-major big-endian data

    FileError where the magic, the sizes or the length of the file do not fit together."""
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not zipped:
            return _parse_idx(path, file, size)
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _parse_idx(path, unzipped, size * _DEFLATE_RATIO)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileError(f"{path}: the gzip stream is broken or cut short: {error}") from error


def _parse_idx(path: Path, file: BinaryIO | gzip.GzipFile, size_limit: int) -> Array:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        raise FileError(f"{path}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
    dtype, ndim = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
    sizes = file.read(4 * ndim)
    if ndim == 0 or len(sizes) < 4 * ndim:
        raise FileError(f"{path}: the sizes of its {ndim} dimensions are missing")
    shape = tuple(int(dim) for dim in np.frombuffer(sizes, ">u4"))
    expected = math.prod(shape) * dtype.itemsize
    if ndim > 32 or 4 + 4 * ndim + expected > size_limit:
        raise FileError(
            f"{path}: shape {shape[:4]} of {dtype} takes {expected} bytes, more than the file can hold"
        )
    data = file.read(expected + 1)
    if len(data) != expected:
        amount = f"only {len(data)}" if len(data) < expected else "more"
        raise FileError(
            f"{path}: shape {shape} of {dtype} takes {expected} bytes of data, the file holds {amount}"
        )
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


# -- .npz and .npy ------------------------------------------------------------------------------------------


def load_npz(path: str | os.PathLike[str]) -> Pair:
    """(X, y) of an archive written by `np.savez(path, X=X, y=y)`, as it holds them.

    X is called X, x, data, images or features and has rows; y is called y, target(s) or label(s) and may be
    names. FileError where one is missing, holds objects (never unpickled), or they differ in length."""
    with _np_load(Path(path)) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not an archive of X and y")
        X, y = (archive[_find_key(archive.files, keys)] for keys in (_X_KEYS, _Y_KEYS))
        if X.ndim < 2 or y.ndim not in (1, 2) or len(X) != len(y) or X.size == 0:
            raise ValueError(
                f"X {X.shape} and y {y.shape} do not pair; expected (N, ...) and (N,) or (N, n_out)"
            )
        if X.dtype.kind not in "buif" or y.dtype.kind not in "buifU":
            raise ValueError(f"X is {X.dtype} and y {y.dtype}; expected real numbers, or names for y")
    return X, y


def load_npy(path: str | os.PathLike[str]) -> Array:
    """X of a file written by `np.save(path, X)`: real numbers of shape (N, ...). FileError for anything
    else."""
    with _np_load(Path(path)) as X:
        if not isinstance(X, np.ndarray):
            raise ValueError("it holds an archive, not a single array")
        if X.ndim < 2 or X.size == 0 or X.dtype.kind not in "buif":
            raise ValueError(f"X is {X.dtype} of shape {X.shape}; expected real numbers (N, ...)")
    return X


@contextmanager
def _np_load(path: Path) -> Iterator[Any]:
    """What `np.load` makes of a file, nothing unpickled; any failure in the block is a FileError."""
    with _open(path) as file:
        try:
            yield np.load(file, allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:  # numpy and zipfile raise a dozen kinds on broken files
            raise FileError(f"{path}: {error} (write numbers with np.savez(path, X=X, y=y))") from error


def _find_key(files: list[str], keys: tuple[str, ...]) -> str:
    for key in keys:
        if key in files:
            return key
    raise ValueError(f"no array called {', '.join(keys)}; there are {', '.join(files) or 'none'}")


def _open(path: Path) -> BinaryIO:
    if path.is_dir():  # a clearer word than the operating system's, and the same on all of them
        raise FileError(f"{path}: a folder, not a file")
    return open(path, "rb")


# -- splits -------------------------------------------------------------------------------------------------


def stratified_split(
    y: ArrayLike, fraction: float, rng: int | np.random.Generator | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(train, held): sorted indices, `held` with round(fraction * N) of them, each class in proportion.

    Where y is (N,) integers, booleans or names, a class of n rows gives floor or ceil of fraction * n; the
    rows that rounding leaves over go to the largest remainders, ties by lot. Any other y is split regardless
    of classes. Neither part is ever empty: N must be at least 2, and 0 < fraction < 1."""
    y = np.asarray(y)
    if not 0 < real_number(fraction, "split: fraction") < 1:
        raise ValueError(f"split: fraction is {fraction}, expected between 0 and 1")
    if y.ndim == 0 or len(y) < 2:
        raise ShapeError(f"split: y of shape {y.shape} has no two rows to part")
    rng = np.random.default_rng(rng)
    count = len(y)
    total = min(max(round(fraction * count), 1), count - 1)
    held = np.zeros(count, dtype=bool)
    if y.ndim == 1 and y.dtype.kind in "buiU":
        _, labels, sizes = np.unique(y, return_inverse=True, return_counts=True)
        taken, remainder = np.divmod(sizes * total, count)
        by_remainder = np.lexsort((rng.random(len(sizes)), -remainder))
        taken[by_remainder[: total - taken.sum()]] += 1
        order = np.lexsort((rng.random(count), labels))  # class by class, shuffled within each
        rank = np.arange(count) - (np.cumsum(sizes) - sizes)[labels[order]]
        held[order[rank < taken[labels[order]]]] = True
    else:
        held[rng.permutation(count)[:total]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def split(
    X: ArrayLike, y: ArrayLike, fraction: float = 0.2, rng: int | np.random.Generator | None = 0
) -> tuple[Array, Array, Array, Array]:
    """(X_train, X_held, y_train, y_held), parted as `stratified_split` does. X (N, ...), y (N,) or (N,
    n_out)."""
    X, y = np.asarray(X), np.asarray(y)
    if X.dtype.kind == "O" or y.dtype.kind == "O":
        raise DTypeError(f"split: X is {X.dtype} and y {y.dtype}; expected arrays of numbers")
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ShapeError(f"split: X {X.shape} and y {y.shape} differ in rows")
    train, held = stratified_split(y, fraction, rng)
    return X[train], X[held], y[train], y[held]
