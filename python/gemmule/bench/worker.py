"""The contender's side of the pipe: one JSON message per line.

    {"setup": [TASK, ...]}  ->  {"version": "...", "errors": [null or "why it cannot be played", ...]},
                                or {"absent": "..."} where the library is not installed
    {"turn": SECONDS}       ->  {"samples": [a Sample or {"error": "..."}, ...]}, in the order of the tasks
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

from .sample import Turn
from .tasks import from_json


def serve(module: str) -> None:
    """Answer the parent until it says quit or goes away."""
    # What libraries print to stdout goes to stderr; the protocol keeps a descriptor of its own.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    turns: list[Turn | str] = []
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        if "quit" in message:
            return
        reply: Any
        if "setup" in message:
            turns = []  # frees the memory of the tasks before
            try:
                contender = importlib.import_module(f".contenders.{module}", __package__)
                turns = [_prepare(contender, fields) for fields in message["setup"]]
                errors = [turn if isinstance(turn, str) else None for turn in turns]
                reply = {"version": contender.version(), "errors": errors}
            except ImportError as error:
                reply = {"absent": str(error)}
        else:
            reply = {"samples": [_play(turn, message["turn"]) for turn in turns]}
        print(json.dumps(reply), file=replies)


def _prepare(contender: ModuleType, fields: Mapping[str, Any]) -> Turn | str:
    """The task, ready to be played, or why it cannot be."""
    task = from_json(fields)
    try:
        turn: Turn = getattr(contender, task.kind)(task)
    except ImportError:
        raise
    except Exception as error:  # the parent reports it beside the others' figures
        return _reason(error)
    return turn


def _play(turn: Turn | str, seconds: float) -> Any:
    if isinstance(turn, str):
        return {"error": turn}
    try:
        return turn(seconds)
    except Exception as error:
        return {"error": _reason(error)}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
