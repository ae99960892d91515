"""The contender's side of the pipe: `python -m bench.worker MODULE`, one JSON message per line.

    {"setup": TASK}      ->  {"version": "..."}, or {"absent": "..."} where the library is not installed
    {"round": SECONDS}   ->  a Sample
    {"quit": true}       ->  nothing; the process ends

Whatever fails answers {"error": "..."}. Between messages the process sleeps in a read.
"""

import importlib
import json
import os
import sys
from typing import Any

from .sample import Round
from .tasks import from_json


def serve(module: str) -> None:
    """Answer the parent until it says quit or goes away."""
    # What libraries print to stdout goes to stderr; the protocol keeps a descriptor of its own.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    play: Round | None = None
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        if "quit" in message:
            return
        reply: Any
        try:
            if "setup" in message:
                play = None  # frees the previous task's memory first
                contender = importlib.import_module(f"bench.contenders.{module}")
                task = from_json(message["setup"])
                play = getattr(contender, task.kind)(task)
                reply = {"version": contender.version()}
            elif play is None:
                reply = {"error": "round before setup"}
            else:
                reply = play(message["round"])
        except ImportError as error:
            reply = {"absent": str(error)}
        except Exception as error:  # the parent reports it beside the others' figures
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    serve(sys.argv[1])
