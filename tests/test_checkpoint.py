"""A fit that is interrupted and resumed ends with the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemmule as gm
from gemmule import _safetensors

X, Y = gm.datasets.digits()
X, Y = X[:300], Y[:300]
EPOCHS = 5
BATCH = 32  # 10 steps an epoch, the last of them smaller


class InterruptionError(Exception):
    """Stands for a kill: nothing after the write is done."""


def make_net() -> gm.Network:
    return gm.Network([gm.Dense(64, 24, "relu"), gm.Dropout(0.3), gm.Dense(24, 10)], rng=7)


def settings(path: Path, steps: int | None = 3) -> dict[str, Any]:
    return {
        "loss": "cross_entropy",
        "optimizer": gm.Adam(gm.schedules.Cosine(1e-2), weight_decay=1e-3),
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "metrics": ["accuracy", "top_3"],
        "validation_data": (X[:50], Y[:50]),
        "callbacks": [
            gm.callbacks.Checkpoint(path, steps=steps),
            gm.callbacks.EarlyStopping(patience=3),
            gm.callbacks.CSVLogger(path.with_suffix(".csv")),
        ],
    }


def interrupt_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fit die behind its n-th checkpoint."""
    from gemmule import _checkpoint

    whole = _checkpoint.write
    done = 0

    def write(*args: Any) -> None:
        nonlocal done
        whole(*args)
        done += 1
        if done == writes:
            raise InterruptionError

    monkeypatch.setattr(_checkpoint, "write", write)


def assert_same_bits(a: gm.Network, b: gm.Network) -> None:
    for (name, p), (_, q) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        np.testing.assert_array_equal(p, q, err_msg=name)


@pytest.mark.parametrize("writes", [1, 3, 4, 5, 9, 16])
@pytest.mark.parametrize("threads", [1, 3])
def test_resumed_is_bitwise_uninterrupted(
    writes: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gm.set_num_threads(threads)
    whole = make_net()
    history = whole.fit(X, Y, **settings(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupt_after(writes, patch)
        with pytest.raises(InterruptionError):
            make_net().fit(X, Y, **settings(tmp_path / "part"))
    resumed = make_net()
    again = resumed.fit(X, Y, **settings(tmp_path / "part"), resume=tmp_path / "part")
    assert_same_bits(whole, resumed)
    assert dict(again) == dict(history)
    assert (tmp_path / "part.csv").read_text() == (tmp_path / "whole.csv").read_text()
    # The next step of both, with the optimizer's state and the random stream, is the same as well.
    assert resumed._step == whole._step


def test_indices_as_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = np.stack([np.random.default_rng(e).permutation(300) for e in range(EPOCHS)])
    whole = make_net()
    whole.fit(X, Y, **settings(tmp_path / "whole"), shuffle=order)
    with monkeypatch.context() as patch:
        interrupt_after(7, patch)
        with pytest.raises(InterruptionError):
            make_net().fit(X, Y, **settings(tmp_path / "part"), shuffle=order)
    resumed = make_net()
    resumed.fit(X, Y, **settings(tmp_path / "part"), shuffle=order, resume=tmp_path / "part")
    assert_same_bits(whole, resumed)


def test_a_finished_fit_and_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    kind: dict[str, Any] = {"loss": "cross_entropy", "batch_size": BATCH}

    def fit(net: gm.Network, epochs: int, **options: Any) -> gm.History:
        callbacks = [gm.callbacks.Checkpoint(path, every=2)]
        return net.fit(X, Y, optimizer=gm.Adam(1e-3), epochs=epochs, callbacks=callbacks, **kind, **options)

    whole, net = make_net(), make_net()
    fit(whole, 5)
    fit(net, 3)
    assert fit(make_net(), 3, resume=path).epochs == 3  # nothing is left to do
    net = make_net()
    assert fit(net, 5, resume=path).epochs == 5
    assert_same_bits(whole, net)
    net.predict(X[:3])


def test_early_stopping_stays_ended(tmp_path: Path) -> None:
    class AtTwo(gm.Callback):
        def on_epoch_end(self, network: gm.Network, epoch: int, logs: Mapping[str, float]) -> bool:
            return epoch == 2

    def fit(net: gm.Network, **options: Any) -> gm.History:
        callbacks = [AtTwo(), gm.callbacks.Checkpoint(tmp_path / "fit", every=5)]
        return net.fit(X, Y, loss="cross_entropy", epochs=6, callbacks=callbacks, **options)

    net = make_net()
    assert fit(net).epochs == 2
    again = make_net()
    assert fit(again, resume=tmp_path / "fit").epochs == 2
    assert_same_bits(net, again)


def test_a_checkpoint_is_a_model_file(tmp_path: Path) -> None:
    net = make_net()
    net.fit(X, Y, **settings(tmp_path / "fit"))
    loaded = gm.load(tmp_path / "fit")
    assert_same_bits(net, loaded)
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))
    assert loaded.loss == net.loss


KILLED = """
import sys
import gemmule as gm
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_checkpoint import X, Y, make_net, settings
kind = settings(Path(sys.argv[1]), steps=2) | {"epochs": 4000, "callbacks": []}
kind["callbacks"] = [gm.callbacks.Checkpoint(sys.argv[1], steps=2)]
kind["optimizer"] = gm.SGD(1e-3, momentum=0.9)
make_net().fit(X, Y, **kind)
"""


def test_killed_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        deadline = time.monotonic() + 60
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    _, metadata = _safetensors.read(path)
    epochs = json.loads(metadata["training"])["epochs"] + 2

    def fit(net: gm.Network, **options: Any) -> None:
        optimizer = gm.SGD(1e-3, momentum=0.9)
        callbacks = [gm.callbacks.Checkpoint(tmp_path / "new", steps=2)]
        kind = settings(path) | {"epochs": epochs, "callbacks": callbacks, "optimizer": optimizer}
        net.fit(X, Y, **kind, **options)

    whole, resumed = make_net(), make_net()
    fit(whole)
    fit(resumed, resume=path)
    assert_same_bits(whole, resumed)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "fit"
    make_net().fit(X, Y, **settings(path))
    return path


def assert_refused(net: gm.Network, kind: type[Exception], words: str, path: Path, **changed: Any) -> None:
    """fit raises, and neither the network nor its optimizer is changed."""
    before, step = net.state_dict(), net._step
    options = settings(path) | changed
    with pytest.raises(kind, match=words):
        net.fit(X, Y, **options, resume=path)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert net._step == step and options["optimizer"].t == 0


def test_another_architecture(written: Path) -> None:
    wider = gm.Network([gm.Dense(64, 25, "relu"), gm.Dropout(0.3), gm.Dense(25, 10)], rng=7)
    assert_refused(
        wider, ValueError, r"another network.*0.weight is \(24, 64\) there and \(25, 64\)", written
    )
    tanh = gm.Network([gm.Dense(64, 24, "tanh"), gm.Dropout(0.3), gm.Dense(24, 10)], rng=7)
    assert_refused(tanh, ValueError, "another network: its layers differ", written)
    double = gm.Network([gm.Dense(64, 24, "relu"), gm.Dropout(0.3), gm.Dense(24, 10)], dtype="float64")
    assert_refused(double, ValueError, "another network", written)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batch_size": 33}, "batch_size 32, this fit has 33"),
        ({"optimizer": gm.Adam(1e-2)}, "optimizer"),
        ({"optimizer": gm.AdamW(gm.schedules.Cosine(1e-2))}, "Adam"),
        ({"loss": "cross_entropy", "metrics": ["accuracy"]}, "history"),
        ({"shuffle": False}, "shuffle True, this fit has False"),
        ({"callbacks": []}, r"callbacks \['EarlyStopping', 'CSVLogger'\], this fit has \[\]"),
    ],
)
def test_other_settings(written: Path, changed: dict[str, Any], words: str) -> None:
    assert_refused(make_net(), ValueError, words, written, **changed)


def test_unreadable_files(written: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_net().save(model)
    with pytest.raises(gm.FileError, match="not a checkpoint"):
        make_net().fit(X, Y, **settings(written), resume=model)
    with pytest.raises(FileNotFoundError):
        make_net().fit(X, Y, **settings(written), resume=tmp_path / "nowhere")
    cut = tmp_path / "cut"
    cut.write_bytes(written.read_bytes()[:-5])
    with pytest.raises(gm.FileError):
        make_net().fit(X, Y, **settings(written), resume=cut)


@pytest.mark.parametrize(
    "damage",
    [
        {"at": 31},
        {"at": -32},
        {"epochs": 2},
        {"updates": []},
        {"sums": "x"},
        {"callbacks": 5},
        {"seconds": None},
    ],
)
def test_malformed_metadata(written: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    tensors, metadata = _safetensors.read(written)
    training = json.loads(metadata["training"]) | damage
    path = tmp_path / "damaged"
    _safetensors.write(path, tensors, metadata | {"training": json.dumps(training)})
    assert_refused(make_net(), gm.FileError, "malformed", path)


def test_what_cannot_be_saved_is_said_at_the_start(tmp_path: Path) -> None:
    net = gm.Network([gm.Dense(64, 10), gm.Activation((lambda z: z, lambda z: np.ones_like(z)))], rng=0)
    before = net.state_dict()
    with pytest.raises(TypeError, match="custom"):
        net.fit(X, Y, loss="cross_entropy", callbacks=[gm.callbacks.Checkpoint(tmp_path / "fit")])
    assert not (tmp_path / "fit").exists()
    np.testing.assert_array_equal(net[0].weight, before["0.weight"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"steps": 0}, {"every": 1.5}])
def test_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="Checkpoint"):
        gm.callbacks.Checkpoint("x", **wrong)
