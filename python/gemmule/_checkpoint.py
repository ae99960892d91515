"""The file of a fit under way: a model file (io.py) with more tensors, named training/..., and the entry
"training" in its metadata: what the fit was asked for, and how far it is."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _safetensors, io
from .arrays import Array
from .callbacks import Callback
from .errors import FileError

if TYPE_CHECKING:
    from ._loop import Loop
    from .network import Network

PREFIX = io.TRAINING_PREFIX
_SLOTS, _OUTPUTS = f"{PREFIX}slots.", f"{PREFIX}outputs"


class Saved(NamedTuple):
    """A checkpoint as read: nothing of it is applied yet."""

    path: str
    network: dict[str, Any]
    training: dict[str, Any]
    tensors: dict[str, Array]  # of the model
    arrays: dict[str, Array]  # of the training


def write(path: str, loop: "Loop", callbacks: Sequence[Callback], ended: bool) -> None:
    """Write where `loop` stands, whole or not at all."""
    tensors, metadata = io.contents(loop.network)
    run = loop.optimizer._run(loop.network)
    for i, state in enumerate(run.states):
        tensors[f"{_SLOTS}{i}"] = state.slots
    if loop.outputs is not None and loop.position[0]:
        tensors[_OUTPUTS] = loop.outputs
    at, epoch_step, sums = loop.position
    training = {
        "settings": describe(loop, callbacks),
        "epochs": loop.history.epochs,
        "at": at,
        "epoch_step": epoch_step,
        "sums": [_exact(value) for value in sums],
        "steps": loop.steps,
        "batches": loop.batches_done,
        "updates": [state.steps for state in run.states],
        "history": {name: [_exact(value) for value in values] for name, values in loop.history.items()},
        "seconds": loop.history.seconds,
        "callbacks": [_state(callback, i, tensors) for i, callback in enumerate(_with_state(callbacks))],
        "ended": ended,
    }
    _safetensors.write(path, tensors, {**metadata, "training": json.dumps(training, allow_nan=False)})


def describe(loop: "Loop", callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What two fits must have in common for one to go on where the other was, as JSON."""
    settings = loop.settings
    # What a callback changes of the optimizer, its own state restores.
    return {
        "loss": f"{settings.loss!r}",
        "optimizer": loop.optimizer_at_start,
        "batch_size": settings.batch_size,
        "accumulate": settings.accumulate,
        "samples": loop.samples,
        "shuffle": "indices" if settings.order is not None else settings.shuffle,
        "precision": settings.precision,
        "augment": None if settings.augment is None else f"{settings.augment!r}",
        "weights": None if loop.data.weights is None else loop.data.weights.described(),
        "history": list(loop.history),
        "callbacks": [type(callback).__name__ for callback in _with_state(callbacks)],
    }


def _with_state(callbacks: Sequence[Callback]) -> list[Callback]:
    """Those that a checkpoint holds something of; others may come and go."""
    return [callback for callback in callbacks if type(callback).state is not Callback.state]


def _state(callback: Callback, number: int, tensors: dict[str, Any]) -> dict[str, Any]:
    """Its state as JSON; arrays go to the tensors."""
    plain: dict[str, Any] = {}
    for name, value in callback.state().items():
        if isinstance(value, np.ndarray):
            tensors[f"{PREFIX}callbacks.{number}.{name}"] = value
        else:
            plain[name] = _exact(value) if isinstance(value, float) else value
    return plain


def read(path: str | PathLike[str]) -> Saved:
    """FileError where it is no checkpoint, or a malformed one."""
    tensors, metadata = _safetensors.read(path)
    if "training" not in metadata or "network" not in metadata:
        raise FileError(f"{path}: not a checkpoint; gm.callbacks.Checkpoint writes them")
    try:
        network, training = json.loads(metadata["network"]), json.loads(metadata["training"])
        if not (isinstance(network, dict) and isinstance(training, dict)):
            raise TypeError("not objects")
    except (ValueError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: the checkpoint in it is malformed: {error}") from error
    model = {name: array for name, array in tensors.items() if not name.startswith(PREFIX)}
    arrays = {name: array for name, array in tensors.items() if name.startswith(PREFIX)}
    return Saved(str(path), network, training, model, arrays)


def apply(saved: Saved, loop: "Loop", callbacks: Sequence[Callback]) -> bool:
    """Set `loop`, which `require_same` has passed, where the checkpoint stands; whether training had ended
    there. FileError where it is malformed; nothing of network and optimizer is changed then."""
    network, run = loop.network, loop.optimizer._run(loop.network)
    training = saved.training
    try:
        position = (int(training["at"]), int(training["epoch_step"]), _floats(training["sums"]))
        finished, done = int(training["epochs"]), (int(training["steps"]), int(training["batches"]))
        columns = {name: _floats(training["history"][name]) for name in loop.history}
        updates = [int(count) for count in training["updates"]]
        slots = [saved.arrays[f"{_SLOTS}{i}"] for i in range(len(run.states))]
        seconds, ended = float(training["seconds"]), bool(training["ended"])
        key, step = int(saved.network["key"]), int(saved.network["step"])
        states = [dict(state) for state in training["callbacks"]]
        shapes_agree = all(
            array.shape == state.slots.shape and array.dtype == state.slots.dtype
            for array, state in zip(slots, run.states, strict=True)
        )
        outputs = saved.arrays[_OUTPUTS] if loop.outputs is not None and position[0] else None
        lengths = {len(column) for column in columns.values()}
        begins_well = loop.begins_update(position[0])
        if not (shapes_agree and len(updates) == len(slots) and lengths == {finished} and begins_well):
            raise ValueError("its parts do not fit together")
        if outputs is not None and (loop.outputs is None or outputs.shape != loop.outputs.shape):
            raise ValueError("its outputs are not of these samples")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FileError(f"{saved.path}: the checkpoint in it is malformed: {error!r}") from error
    for i, (callback, kept) in enumerate(zip(_with_state(callbacks), states, strict=True)):
        prefix = f"{PREFIX}callbacks.{i}."
        arrays = {name.removeprefix(prefix): a for name, a in saved.arrays.items() if name.startswith(prefix)}
        callback.restore({name: _inexact(value) for name, value in kept.items()} | arrays)
    network.load_state_dict(saved.tensors)
    for array, state, count in zip(slots, run.states, updates, strict=True):
        state.slots[...] = array
        state.steps = count
    network._key, network._step = key, step
    loop.resumed(position, *done)
    if outputs is not None and loop.outputs is not None:
        loop.outputs[...] = outputs
    loop.history._restore(columns, seconds)
    return ended


def require_same(saved: Saved, loop: "Loop", callbacks: Sequence[Callback]) -> None:
    """FileError where network, data or settings are others than those the checkpoint was written with."""
    loop.require_resumable()
    ours = json.loads(io.contents(loop.network)[1]["network"])
    for part in ("layers", "dtype", "input_shape", "trainable"):
        if saved.network.get(part) != ours[part]:
            raise FileError(
                f"fit: resume={saved.path!r} was written for another network: its {part} differ"
                + _difference(saved.tensors, loop.network)
            )
    theirs = saved.training.get("settings")
    for name, value in describe(loop, callbacks).items():
        given = theirs.get(name) if isinstance(theirs, dict) else None
        if given != value:
            raise FileError(
                f"fit: resume={saved.path!r} was written with {name} {given!r}, this fit has {value!r}"
            )


def _difference(tensors: Mapping[str, Array], network: "Network") -> str:
    """The first parameter whose shape is another, for people."""
    ours = {name: array.shape for name, array in network.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in tensors.items()}
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            return f"; {name} is {theirs.get(name, 'missing')} there and {ours.get(name, 'missing')} here"
    return ""


# NaN and infinities are not JSON; other numbers read back bit for bit.
def _exact(value: float) -> Any:
    return value if np.isfinite(value) else {"float": str(float(value))}


def _inexact(value: Any) -> Any:
    return float(value["float"]) if isinstance(value, dict) and set(value) == {"float"} else value


def _floats(values: Any) -> list[float]:
    return [float(_inexact(value)) for value in values]
