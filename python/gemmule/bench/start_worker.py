"""What a contender's interpreter is started on: `python start_worker.py MODULE`.

A peer's interpreter need not have gemmule, and must not see the packages that lie beside it: this folder
becomes a package of its own there, and nothing is added to the path.
"""

import importlib
import sys
import types
from pathlib import Path

if __name__ == "__main__":
    folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    package = types.ModuleType("bench")
    package.__path__ = [folder]
    sys.modules["bench"] = package
    importlib.import_module("bench.worker").serve(sys.argv[1])
