"""CSVLogger and TensorBoard: what is in the files, whatever happens."""

import csv
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import classification, classifier, environment, fitted, through_a_file, weights

import gemmule as gm
from gemmule.callbacks import CSVLogger, LambdaCallback, TensorBoard

# -- CSVLogger -----------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def rows_in(history: gm.History, first: int = 1) -> list[dict[str, float]]:
    return [
        {"epoch": first + i, **{key: values[i] for key, values in history.items()}}
        for i in range(history.epochs)
    ]


def test_a_row_an_epoch_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    x, y = classification()
    net = fitted([CSVLogger(path)], 3, validation_data=(x, y))
    assert path.read_text().startswith("epoch,loss,accuracy,val_loss,val_accuracy\n1,")
    assert rows_of(path) == rows_in(net.history)
    net = fitted([CSVLogger(str(path))], 2)  # another set of columns: the file is begun anew
    assert rows_of(path) == rows_in(net.history)


def test_append(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    first = fitted([CSVLogger(path, append=True)], 2).history
    path.write_text(path.read_text() + "3,0.12")  # a row cut short
    second = fitted([CSVLogger(path, append=True)], 2).history
    assert rows_of(path) == rows_in(first) + rows_in(second)


def test_columns_that_differ_and_paths_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    fitted([CSVLogger(path)], 1)
    before, net = path.read_bytes(), classifier()
    start = weights(net)
    with pytest.raises(
        gm.FileError, match=r"log\.csv has the columns epoch,loss,accuracy, this training epoch,loss$"
    ):
        fitted([CSVLogger(path, append=True)], net=net, metrics=[])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fitted([CSVLogger(tmp_path / "nowhere" / "log.csv")], net=net)
    with pytest.raises(IsADirectoryError):
        fitted([CSVLogger(tmp_path)], net=net)
    assert path.read_bytes() == before and weights(net) == start


def test_rows_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    code = f"""
import os, signal
import numpy as np
import gemmule as gm

def kill(network, epoch, logs):
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

net = gm.Network.mlp([2, 4, 1], rng=0)
callbacks = [gm.callbacks.CSVLogger({str(path)!r}), gm.callbacks.LambdaCallback(on_epoch_end=kill)]
net.fit(np.ones((8, 2)), np.ones(8), loss="mse", epochs=9, callbacks=callbacks)
"""
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert [row["epoch"] for row in rows_of(path)] == [1, 2, 3]


@pytest.mark.parametrize("append", [True, False])
def test_the_log_goes_on_from_a_checkpoint(tmp_path: Path, append: bool) -> None:
    """Written after epoch 2; rows 3 and 4 came before the interruption, and come again."""
    path, states = tmp_path / "log.csv", []
    logger = CSVLogger(path)
    keeper = LambdaCallback(on_epoch_end=lambda net, epoch, logs: states.append(logger.state()))
    first = fitted([logger, keeper], 4).history
    again = CSVLogger(path, append)
    again.on_train_begin(classifier(), gm.SGD())
    again.restore(through_a_file(states[1]))
    logs = {"loss": 0.5, "accuracy": 0.25}
    again.on_epoch_begin(classifier(), 3)
    again.on_epoch_end(classifier(), 3, logs)
    assert rows_of(path) == [*rows_in(first)[:2], {"epoch": 3, **logs}]
    path.unlink()
    again.on_train_begin(classifier(), gm.SGD())
    again.restore(states[1])
    again.on_epoch_end(classifier(), 3, logs)
    assert rows_of(path) == [{"epoch": 3, **logs}]
    with pytest.raises(ValueError, match="CSVLogger: the state has epoch"):
        again.restore({"epoch": 3})


# -- TensorBoard ---------------------------------------------------------------------------------------------


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, epoch, value) of all event files: records of a length, its CRC, a protobuf message, its CRC."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    x, y = classification()
    board = TensorBoard(tmp_path)
    history = fitted([board], 3, validation_data=(x[:30], y[:30])).history
    for run, prefix in [("train", ""), ("validation", "val_")]:
        want = [
            (tag, epoch + 1, np.float32(history[prefix + tag][epoch]))
            for epoch in range(3)
            for tag in ("loss", "accuracy")
        ]
        assert scalars(tmp_path / run) == want
    assert board.state() == {"epoch": 3}
    board.restore({"epoch": 1})
    board.on_epoch_end(classifier(), 2, {"loss": 0.5})
    board.on_train_end(classifier(), history)
    assert scalars(tmp_path / "train")[-1] == ("loss", 2, 0.5)


def test_tensorboard_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        ImportError, match=r"TensorBoard needs tensorboardX: pip install 'gemmule\[tensorboard\]'"
    ):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())


def test_importing_gemmule_imports_none_of_it() -> None:
    names = ("tensorboardX", "gemmule.metrics", "tqdm")
    code = f"import sys, gemmule; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr
