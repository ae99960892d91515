"""Small networks and data that several test files train, and what they do with them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gemmule as gm
from gemmule import _checkpoint

Array = NDArray[Any]


def regression(count: int = 96) -> tuple[Array, Array]:
    """Five features, two outputs."""
    x = np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)
    return x, np.tanh(x[:, :2]) + x[:, 2:4]


def regressor() -> gm.Network:
    return gm.Network.mlp([5, 16, 8, 2], activation="tanh", rng=1)


def classification(count: int = 90) -> tuple[Array, Array]:
    """Points in the plane in three classes of unequal size."""
    x = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.3)


def classifier(rng: int = 0, dtype: str = "float32") -> gm.Network:
    return gm.Network.mlp([2, 16, 3], activation="tanh", rng=rng, dtype=dtype)


class Doubling(gm.Layer):
    """y = 2 x, in Python."""

    def forward(self, x: Array) -> Array:
        return 2 * x

    def backward(self, dy: Array) -> Array:
        return 2 * dy


def weights(net: gm.Network) -> dict[str, bytes]:
    """Every bit of the parameters."""
    return {name: p.tobytes() for name, p in net.named_parameters()}


def gradients(net: gm.Network) -> dict[str, bytes]:
    return {name: p.grad.tobytes() for name, p in net.named_parameters()}


class KilledError(Exception):
    """Stands for a kill."""


@contextmanager
def killed_behind(writes: int) -> Iterator[None]:
    """What runs here must die right behind so many checkpoints."""
    write, left = _checkpoint.write, writes

    def dying(*arguments: Any) -> None:
        nonlocal left
        write(*arguments)
        left -= 1
        if left == 0:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint, "write", dying)
        with pytest.raises(KilledError):
            yield


def fitted(callbacks: list[gm.Callback], epochs: int = 3, net: Any = None, **options: Any) -> gm.Network:
    """A classifier after a fit with these callbacks."""
    x, y = classification()
    net = net or classifier()
    options = {"loss": "cross_entropy", "optimizer": gm.SGD(0.1), "metrics": ["accuracy"], **options}
    net.fit(x, y, epochs=epochs, callbacks=callbacks, **options)
    return net


def through_a_file(state: Mapping[str, Any]) -> dict[str, Any]:
    """As a checkpoint would hold it: arrays apart, the rest as JSON."""
    arrays = {name: value.copy() for name, value in state.items() if isinstance(value, np.ndarray)}
    rest = json.loads(json.dumps({name: value for name, value in state.items() if name not in arrays}))
    return {**rest, **arrays}


def environment(**changes: str) -> dict[str, str]:
    """For a new interpreter that imports what this one imports."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **changes}


def run_python(code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with these changes to the environment."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(**changes), capture_output=True, text=True, timeout=120)
