"""The contender's side of the pipe: one JSON message per line.

    {"setup": [TASK, ...]}  ->  {"version": "...", "errors": [null or "why it cannot be played", ...]},
                                or {"absent": "..."} where the library is not installed
    {"turn": SECONDS}       ->  {"samples": [a Sample or {"error": "..."}, ...]}, in the order of the tasks
    {"memory": TASK, "variant": NAME or null}
                            ->  {"bytes": peak above Python with NumPy and the data}, or {"absent": "..."};
                                to be asked first, of a new process
    {"quit": true}          ->  nothing; the process ends

Between messages the process sleeps in a read.
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from . import memory
from .cnn_tasks import CnnTask
from .sample import CeilingTurn, Turn
from .tasks import NetworkTask, from_json

AnyTurn = Turn | CeilingTurn

_REASON_LENGTH = 300


def serve(module: str) -> None:
    """Answer the parent until it says quit or goes away."""
    # What libraries print to stdout goes to stderr; the protocol keeps a descriptor of its own.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    turns: list[AnyTurn | str] = []
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        if "quit" in message:
            return
        reply: Any
        if "memory" in message:
            reply = _measure_memory(module, message["memory"], message["variant"])
        elif "setup" in message:
            turns = []  # frees the memory of the tasks before
            try:
                contender = _contender(module)
                turns = [_prepare(contender, fields) for fields in message["setup"]]
                errors = [turn if isinstance(turn, str) else None for turn in turns]
                reply = {"version": contender.version(), "errors": errors}
            except ImportError as error:
                reply = {"absent": str(error)}
        else:
            reply = {"samples": [_play(turn, message["turn"]) for turn in turns]}
        print(json.dumps(reply), file=replies)


def _contender(module: str) -> ModuleType:
    return importlib.import_module(f".contenders.{module}", __package__)


def _measure_memory(module: str, fields: Mapping[str, Any], variant: str | None) -> dict[str, Any]:
    task = from_json(fields)
    assert isinstance(task, NetworkTask | CnnTask)
    _ = task.data  # made, and kept by the task
    before = memory.reset_peak()
    try:
        contender = _contender(module)
        options = {} if variant is None else {"variant": variant}
        turn: AnyTurn = getattr(contender, task.kind)(task, **options)
        turn(0.0)
    except Exception as error:
        return {"absent": _reason(error)}
    return {"bytes": memory.peak() - before}


def _prepare(contender: ModuleType, fields: Mapping[str, Any]) -> AnyTurn | str:
    """The task, ready to be played, or why it cannot be."""
    task = from_json(fields)
    try:
        turn: AnyTurn = getattr(contender, task.kind)(task)
    except ImportError:
        raise
    except Exception as error:  # the parent reports it beside the others' figures
        return _reason(error)
    return turn


def _play(turn: AnyTurn | str, seconds: float) -> Any:
    if isinstance(turn, str):
        return {"error": turn}
    try:
        return turn(seconds)
    except Exception as error:
        return {"error": _reason(error)}


def _reason(error: Exception) -> str:
    """Its first line, not too long: PyTorch's compiler explains itself in pages."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:_REASON_LENGTH]}"
