"""Arguments that cannot be meant: each error names the operation and the argument."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import classification, classifier

import gemmule as gm

HUGE = 10**400
A, B = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)


def fit(**arguments: Any) -> Callable[[], object]:
    x, y = classification()
    return lambda: classifier().fit(**{"X": x, "y": y, "loss": "cross_entropy", **arguments})


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (fit(epochs=2**70), ValueError, r"epochs is \d+; it must be below"),
        (fit(epochs=1.0), TypeError, "epochs"),
        (fit(batch_size=True), TypeError, "batch_size"),
        (fit(validation_split="a"), TypeError, "validation_split must be a number"),
        (fit(validation_split=None), TypeError, "validation_split must be a number"),
        (fit(validation_data=A), TypeError, "validation_data must be a pair"),
        (fit(validation_data=(A,)), TypeError, "validation_data must be a pair"),
        (fit(metrics=None), TypeError, "metrics must be a list"),
        (fit(callbacks=gm.Callback()), TypeError, "callbacks must be a list"),
        (fit(callbacks=[print]), TypeError, "not a Callback"),
        (fit(y=-np.eye(3)[classification()[1]]), ValueError, r"y holds -1 at .*\[0, 1\]"),
        (fit(y=np.full((90, 3), np.nan)), ValueError, "y holds nan"),
        (fit(X=(i for i in range(3))), gm.DTypeError, "X has dtype object"),
        (lambda: gm.SGD(HUGE), ValueError, "lr is beyond"),
        (lambda: gm.SGD(True), TypeError, "lr must be a number"),
        (lambda: gm.SGD(np.complex64(1)), TypeError, "lr must be a number"),
        (lambda: gm.Dropout("a"), TypeError, "rate must be a number"),
        (lambda: gm.Dense(2, 3, "elu", slope="a"), TypeError, "slope must be a number"),
        (lambda: gm.Dense(2**63, 1), ValueError, r"n_in is \d+; it must be below"),
        (lambda: gm.Network([gm.Dense(2**40, 2**40)]), gm.ShapeError, "'weight' .* overflows"),
        (lambda: gm.Network(gm.Dense(2, 3)), TypeError, "layers must be a list"),
        (lambda: gm.Network([gm.Dense(None, 3)], input_shape=(4, 1)), gm.ShapeError, r"\(N, 4, 1\)"),
        (lambda: gm.Network.mlp(3), ValueError, "sizes must list"),
        (lambda: classifier().load_state_dict(3), TypeError, "state must map"),
        (lambda: classifier().plan(2**63), ValueError, "batch_size"),
        (lambda: gm.set_num_threads(2**40), ValueError, "1 to 256"),
        (lambda: gm.ops.gemm(None, B), gm.DTypeError, "gemm: a"),
        (lambda: gm.ops.gemm(A, B, alpha="x"), TypeError, "gemm: alpha"),
        (lambda: gm.ops.gemm(A, B, alpha=HUGE), ValueError, "gemm: alpha"),
        (lambda: gm.ops.dropout(A, "x", 0), TypeError, "dropout: rate"),
        (lambda: gm.ops.dropout(A, 0.5, 0, step=1.5), ValueError, "dropout: step"),
        (lambda: gm.datasets.split(A, A, "a"), TypeError, "fraction must be a number"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


def test_divergence_names_the_data_that_caused_it() -> None:
    x, y = classification()
    x[70] = np.nan
    with pytest.raises(gm.DivergenceError, match=r"epoch 1.*X itself holds NaN"):
        classifier().fit(x, y, loss="cross_entropy")
