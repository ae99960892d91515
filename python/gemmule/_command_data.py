"""What the command line trains on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import _command_tables, datasets
from ._arguments import UsageError
from ._columns import FLOAT32_MAX, Array, Columns
from ._command_tables import TableOptions
from .arrays import Shape
from .errors import FileError
from .tables import TableEncoder

if TYPE_CHECKING:
    from ._preparation import Preparation


@dataclass(frozen=True)
class Table:
    """Rows as the files hold them: X (N, n_in) or columns, y (N,) or (N, n_out) or None, and test rows where
    the files have some. `image` is a row's shape (H, W, C) where the data are images."""

    X: Array | Columns
    y: Array | None
    test: tuple[Array, Array] | None = None
    full_scale: float | None = None  # of pixels: dividing by it gives 0..1
    encoder: TableEncoder | None = None  # of columns
    target: str | None = None  # the column that y was
    classify: bool | None = None  # None: as y's type and shape tell
    notes: tuple[str, ...] = ()
    image: Shape | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same training rows, wherever they lie."""
        digest = hashlib.sha256()
        if isinstance(self.X, Columns):
            assert self.encoder is not None
            self.X.only(self.encoder.names).hash_into(digest)
        else:
            digest.update(f"{self.X.shape} {self.X.dtype.str}".encode())
            digest.update(np.ascontiguousarray(self.X).data)
        if self.y is not None:
            digest.update(np.ascontiguousarray(self.y).tobytes())
        return digest.hexdigest()


def load_table(
    data: str, folder: str | None, options: TableOptions | None = None, model: "Preparation | None" = None
) -> Table:
    """`data` is digits, mnist (in `folder`), a folder of IDX files, a .npz of X and y, a .npy of X alone, or
    a CSV table.

    A table is read for `model` where there is one: what it needs of columns, with y where `options.target`
    names it. Else it is read to be trained on, as `options` say.

    FileError where it is none of these, or holds NaN, infinities or what float32 cannot hold."""
    options = options or TableOptions()
    path = Path(folder) if data == "mnist" and folder is not None else Path(data)
    if _is_table(data, path, options, model):
        return _for_model(data, options, model) if model else _to_train_on(data, options)
    given = [f"--{name}" for name, value in options._asdict().items() if value]
    if given and (model is None or model.encoder is None):
        raise UsageError(f"{given[0]} goes with CSV tables, not with {data}")
    if data == "digits":
        X, y = datasets.digits(scale=False)
        return Table(X, y, full_scale=16.0, image=(8, 8, 1))
    if data == "mnist" or path.is_dir():
        train, test = datasets.idx_folder(path)
        scale = 255.0 if train[0].dtype == np.uint8 else None
        held = _flat(test[0]), test[1]
        return Table(_flat(train[0]), train[1], held, scale, image=_image(train[0]))
    if path.suffix == ".npz":
        X, y = datasets.load_npz(path)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        _require_numbers(path, X=_flat(X), y=y)
        return Table(_flat(X), y, full_scale=255.0 if X.dtype == np.uint8 else None, image=_image(X))
    if path.suffix == ".npy":
        X = datasets.load_npy(path)
        _require_numbers(path, X=_flat(X))
        return Table(_flat(X), None, full_scale=255.0 if X.dtype == np.uint8 else None)
    raise FileError(f"{data}: expected digits, mnist, a folder of IDX files, a .npz, .npy or .csv file")


def _is_table(data: str, path: Path, options: TableOptions, model: "Preparation | None") -> bool:
    """By its name, or where nothing else can be meant."""
    if data in ("digits", "mnist") or path.is_dir() or path.suffix in (".npz", ".npy"):
        return False
    meant = options.target is not None or (model is not None and model.encoder is not None)
    return _command_tables.is_csv(data) or (meant and path.exists())


def _to_train_on(data: str, options: TableOptions) -> Table:
    found, encoder = _command_tables.to_train_on(data, options)
    return Table(
        found.X,
        found.y,
        encoder=encoder,
        target=options.target,
        classify=found.classify,
        notes=tuple(found.notes),
    )


def _for_model(data: str, options: TableOptions, model: "Preparation") -> Table:
    encoder, target = model.encoder, options.target
    if encoder is None:
        raise FileError(f"{data}: the model was trained on arrays, not on a table with named columns")
    if target is None:
        return Table(_command_tables.to_predict(data, encoder, options.delimiter), None, encoder=encoder)
    found = _command_tables.to_score(data, encoder, target, model.classes, options.delimiter)
    return Table(found.X, found.y, encoder=encoder, target=target, notes=tuple(found.notes))


def _require_numbers(path: Path, **arrays: Array) -> None:
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        unusable = ~(np.abs(array) <= FLOAT32_MAX)
        if unusable.any():
            at = tuple(int(i) for i in np.argwhere(unusable)[0])
            raise FileError(
                f"{path}: {name} holds {array[at]!s} at {at}; numbers in the range of float32 are due"
            )


def _flat(X: Array) -> Array:
    return X.reshape(len(X), -1)


def _image(X: Array) -> Shape | None:
    """(H, W, C) where X is (N, H, W) or (N, H, W, C)."""
    return (*X.shape[1:], 1)[:3] if X.ndim in (3, 4) else None


def split_rows(y: Array, *, classify: bool, fraction: float, seed: int) -> tuple[Array, Array]:
    """(train, held) rows, stratified where `y` are labels to tell apart."""
    key = np.unique(y, return_inverse=True)[1] if classify else y.reshape(len(y), -1)
    return datasets.stratified_split(key, fraction, seed)
