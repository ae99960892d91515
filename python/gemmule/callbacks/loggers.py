"""Callbacks that write down what training recorded: a CSV file, TensorBoard."""

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import FileError
from .base import Callback, Logs, expect

if TYPE_CHECKING:
    from ..history import History
    from ..network import Network
    from ..optim import LBFGS, Optimizer


class CSVLogger(Callback):
    """Writes a row an epoch to a CSV file: epoch, loss, metrics, the same of the validation data.

    A row is in the file when its epoch has ended, whatever happens afterwards. Numbers are written so that
    they read back bit for bit.

    append: add to the file where it exists and has the same columns; else what it held is replaced when
        training begins. A row that was cut short is dropped. Where the fit goes on from a checkpoint, the
        rows written since are dropped and the others kept, in either case.

    Before the first epoch, FileError where the columns of the file are others, OSError where it cannot be
    written."""

    def __init__(self, path: "str | os.PathLike[str]", append: bool = False) -> None:
        from pathlib import Path  # here: a sixth of the time of importing gemmule

        self.path = Path(path)
        self.append = bool(append)
        self._columns: list[str] | None = None  # known once the file is begun
        self._size: int | None = None  # bytes up to which the file is this run's

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        self._columns = self._size = None

    def on_epoch_begin(self, network: "Network", epoch: int) -> None:
        history = network.history
        if self._columns is None and history is not None:
            self._begin(list(history))

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        if self._columns is None:
            self._begin(list(logs))
        assert self._columns is not None
        self._write([epoch, *(float(logs[name]) for name in self._columns)])
        return None

    def state(self) -> dict[str, Any]:
        return {"size": self._size}

    def restore(self, state: Mapping[str, Any]) -> None:
        expect(self, state, ("size",))
        self._size = state["size"]

    def _begin(self, columns: list[str]) -> None:
        """Make the file ready for its next row."""
        header = _row(["epoch", *columns])
        kept = 0
        if (self.append or self._size is not None) and self.path.exists():
            text = self.path.read_bytes()[: self._size]
            kept = text.rfind(b"\n") + 1
            if kept and not text.startswith(header):
                raise FileError(
                    f"CSVLogger: {self.path} has the columns {_shown(text)}, this training {_shown(header)}"
                )
        with open(self.path, "r+b" if kept else "wb") as file:
            file.truncate(kept)
        self._columns, self._size = columns, kept
        if not kept:
            self._write(["epoch", *columns])

    def _write(self, cells: list[object]) -> None:
        # Opened anew for each row: nothing is left open after an exception.
        with open(self.path, "ab") as file:
            file.write(_row(cells))
            self._size = file.tell()


def _row(cells: list[Any]) -> bytes:
    import csv

    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _shown(text: bytes) -> str:
    return text.split(b"\n")[0].decode(errors="replace")


class TensorBoard(Callback):
    """Writes losses and metrics as scalars for TensorBoard, those of the validation data as a run of their
    own.

    folder: gets `train` and, with validation, `validation`; the tags are "loss", "accuracy" and so on, so
        that both curves are drawn in one picture. `tensorboard --logdir folder` shows it, also while
        training runs.

    Needs the package tensorboardX, which `pip install 'gemmule[tensorboard]'` brings: ImportError where it is
    missing."""

    def __init__(self, folder: "str | os.PathLike[str]") -> None:
        from pathlib import Path

        self.folder = Path(folder)
        _writer_class()  # missing now is better than after hours
        self._writers: dict[str, Any] = {}
        self._epoch: int | None = None

    def on_train_begin(self, network: "Network", optimizer: "Optimizer | LBFGS") -> None:
        self._close()
        self._epoch = None

    def on_epoch_end(self, network: "Network", epoch: int, logs: Logs) -> bool | None:
        runs = set()
        for key, value in logs.items():
            run = "validation" if key.startswith("val_") else "train"
            runs.add(run)
            self._writer(run).add_scalar(key.removeprefix("val_"), float(value), epoch)
        for run in runs:
            self._writer(run).flush()
        self._epoch = epoch
        return None

    def on_train_end(self, network: "Network", history: "History") -> None:
        self._close()

    def state(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        expect(self, state, ("epoch",))
        self._epoch = state["epoch"]

    def _writer(self, run: str) -> Any:
        if run not in self._writers:
            # Points of epochs after the checkpoint, written before an interruption, are no longer shown.
            purge = None if self._epoch is None else self._epoch + 1
            self._writers[run] = _writer_class()(str(self.folder / run), purge_step=purge)
        return self._writers[run]

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError("TensorBoard needs tensorboardX: pip install 'gemmule[tensorboard]'") from error
    return SummaryWriter
