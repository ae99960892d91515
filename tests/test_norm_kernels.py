"""The kernels of normalization by themselves: no byte beyond the arrays, any fused activation, what they
refuse."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import Guarded
from helpers import run_python
from matrices import DTYPES
from norm_reference import Array

import gemmule as gm
from gemmule import _core

# -- memory --------------------------------------------------------------------------------------------------

BATCHES = [(1, 1), (7, 3), (70, 3), (65, 5), (5, 16), (9, 33), (3, 65), (2, 257)]
SAMPLES = [
    (1, 1, 1, 1),
    (3, 1, 7, 1),
    (2, 1, 70, 2),
    (5, 1, 33, 3),
    (2, 70, 3, 3),
    (3, 5, 10, 5),
    (2, 9, 66, 2),
]


def check_between_pages(isa: str) -> None:
    """Every array flush with a page that may not be touched, at either end."""
    _core.force_isa(isa)
    memories = [Guarded(1 << 15) for _ in range(7)]
    rng = np.random.default_rng(0)
    for dtype, end in itertools.product(DTYPES, (False, True)):

        def placed(memory: int, shape: tuple[int, ...], dtype: Any = dtype, end: bool = end) -> Array:
            values = rng.standard_normal((1, int(np.prod(shape)))).astype(dtype)
            return memories[memory].place(values, 0, end).reshape(shape)

        for shape in BATCHES:
            x, dy, y = (placed(i, shape) for i in range(3))
            weight, bias = (placed(i, shape[1:]) for i in (3, 4))
            stats, sums = placed(5, (3, shape[1])), placed(6, (2, shape[1]))
            _core.batch_stats(x, 1e-5, stats)
            _core.batch_norm(x, stats, weight, bias, y)
            _core.batch_norm_sums(dy, x, stats, sums)
            _core.batch_norm_grad(dy, x, stats, weight, sums, y)
        for *sample, groups in SAMPLES:
            x, dy, y = (placed(i, tuple(sample)) for i in range(3))
            weight, bias = (placed(i, (sample[2],)) for i in (3, 4))
            stats, sums = placed(5, (sample[0], groups, 2)), placed(6, (2, sample[2]))
            _core.group_norm(x, groups, weight, bias, 1e-5, y, stats)
            _core.group_norm_sums(dy, x, groups, stats, sums)
            _core.group_norm_grad(dy, x, groups, stats, weight, y)


def test_no_byte_beyond_the_arrays(isa: str) -> None:
    """In a process of its own, which a fault would end."""
    done = run_python(f"import test_norm_kernels; test_norm_kernels.check_between_pages({isa!r})")
    assert done.returncode == 0, done.stderr


def test_in_place(isa: str) -> None:
    """A result may take over the memory of x, and dx that of dy, as it does in a plan."""
    rng = np.random.default_rng(0)
    for dtype, (count, pixels, channels) in itertools.product(DTYPES, [(3, 50, 6), (40, 1, 37)]):
        x, dy = (rng.standard_normal((count, pixels, channels)).astype(dtype) for _ in range(2))
        stats, y, dx = np.empty((count, 1, 2), dtype), np.empty_like(x), np.empty_like(x)
        _core.group_norm(x, 1, None, None, 1e-5, y, stats)
        _core.group_norm_grad(dy, x, 1, stats, None, dx)
        over, grad = x.copy(), dy.copy()
        _core.group_norm(over, 1, None, None, 1e-5, over, None)
        np.testing.assert_array_equal(over, y)
        _core.group_norm_grad(grad, x, 1, stats, None, grad)
        np.testing.assert_array_equal(grad, dx)


# -- bad input -----------------------------------------------------------------------------------------------


def rows(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


X, STATS, CUBE = rows(2, 4), rows(3, 4), rows(2, 1, 4)


def normalized(x: Array = X, weight: Any = None, y: Array = X) -> None:
    _core.batch_norm(x, STATS, weight, None, y.copy() if y.flags.c_contiguous else y)


def grouped(groups: int, x: Array = CUBE, weight: Any = None, stats: Any = None) -> None:
    _core.group_norm(x, groups, weight, None, 1e-5, x.copy(), stats)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: _core.batch_stats(rows(4), 1e-5, STATS.copy()), gm.ShapeError, "not (pixels, channels)"),
        (lambda: _core.batch_stats(rows(0, 4), 1e-5, STATS.copy()), gm.ShapeError, "x has shape (0, 4)"),
        (lambda: _core.batch_stats(X, 1e-5, rows(2, 4)), gm.ShapeError, "stats has shape (2, 4), not (3, 4)"),
        (lambda: _core.batch_norm_sums(rows(3, 4), X, STATS, X.copy()), gm.ShapeError, "dy has shape (3, 4)"),
        (lambda: normalized(weight=rows(3)), gm.ShapeError, "weight has shape (3,), not (4,)"),
        (lambda: normalized(y=rows(2, 4, dtype=float)), gm.DTypeError, "y is float64, not float32"),
        (lambda: normalized(x=rows(2, 4, dtype=int)), gm.DTypeError, "x is int64, not float32 or float64"),
        (lambda: normalized(x=rows(4, 2).T), ValueError, "x is not C-contiguous"),
        (lambda: grouped(2, x=X), gm.ShapeError, "not (samples, pixels, channels)"),
        (lambda: grouped(3), ValueError, "groups is 3, which does not divide 4 channels"),
        (lambda: grouped(0), ValueError, "groups is 0"),
        (lambda: grouped(2, weight=rows(4)), ValueError, "weight and bias go together"),
        (lambda: grouped(2, stats=rows(2, 1, 2)), gm.ShapeError, "stats has shape (2, 1, 2), not (2, 2, 2)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(call: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_values_that_do_not_fit() -> None:
    graph, store = _core.Graph("float32"), _core.Store("float32", [4, 4, 3])
    x = graph.input([5, 4])
    four, also, three = (graph.parameter(store, i, [n], False, f"p{i}") for i, n in enumerate((4, 4, 3)))
    for call, message in [
        (lambda: graph.batch_norm(x, [four, three], [four, also], 1e-5, 0.1, False, "n"), r"beta \(3,\)"),
        (lambda: graph.batch_norm(x, None, [three, three], 1e-5, 0.1, False, "n"), "stats .* do not fit"),
        (lambda: graph.batch_norm(x, None, [three, three], 1e-5, 0.1, True, "n"), "running statistics do"),
        (lambda: graph.group_norm(x, None, 3, 0, 1e-5, "n"), "group_norm: groups is 3, which"),
        (lambda: graph.group_norm(x, [four, three], 2, 0, 1e-5, "n"), r"group_norm: beta \(3,\) does"),
        (lambda: graph.group_norm(x, [three, three], 1, 1, 1e-5, "n"), r"layer_norm: gamma \(3,\) does"),
        (lambda: graph.group_norm(x, None, 1, 3, 1e-5, "n"), "layer_norm: x .* has no 3 axes"),
    ]:  # fmt: skip
        with pytest.raises(gm.ShapeError, match=message):
            call()
