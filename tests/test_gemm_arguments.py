"""GEMM: arguments that cannot be meant. Errors name operation, argument and shapes; nothing is written."""

from typing import Any

import numpy as np
import pytest
from matrices import DTYPES, Array

import gemmule as gm


def f32(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def repeated(rows: int, cols: int) -> Array:
    """One element in memory, whatever the shape."""
    return np.lib.stride_tricks.as_strided(f32(1), (rows, cols), (0, 0))


A, B = f32(3, 4), f32(4, 6)


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        # inner dimensions, as the transposes leave them
        ({"b": f32(5, 6)}, gm.ShapeError, r"inner.*\(3, 4\).*\(5, 6\)"),
        ({"trans_a": True}, gm.ShapeError, r"inner.*\(4, 3\).*\(4, 6\)"),
        ({"trans_b": True}, gm.ShapeError, r"inner.*\(3, 4\).*\(6, 4\)"),
        ({"a": f32(3, 0)}, gm.ShapeError, r"inner.*\(3, 0\).*\(4, 6\)"),
        # ranks
        ({"a": f32(4)}, gm.ShapeError, r"a \(4,\).*b \(4, 6\).*not matrices"),
        ({"b": f32(4)}, gm.ShapeError, r"b \(4,\)"),
        ({"a": f32(2, 3, 4)}, gm.ShapeError, r"a \(2, 3, 4\)"),
        ({"b": f32()}, gm.ShapeError, r"b \(\)"),
        ({"a": [[1.0], [1.0, 2.0]]}, gm.ShapeError, "a: not a rectangular array"),
        # bias
        ({"bias": f32(5)}, gm.ShapeError, r"bias \(5,\).*6 columns"),
        ({"bias": f32(1, 6)}, gm.ShapeError, r"bias \(1, 6\)"),
        ({"bias": f32()}, gm.ShapeError, r"bias \(\)"),
        # out
        ({"out": f32(3, 5)}, gm.ShapeError, r"out \(3, 5\) is not \(3, 6\)"),
        ({"out": f32(6, 3)}, gm.ShapeError, r"out \(6, 3\)"),
        ({"out": f32(18)}, gm.ShapeError, r"out \(18,\)"),
        ({"out": f32(1, 3, 6)}, gm.ShapeError, r"out \(1, 3, 6\)"),
        ({"out": np.ones((3, 6))}, gm.DTypeError, "out is float64, not float32"),
        ({"out": np.ones((3, 6), np.int32)}, gm.DTypeError, "out is int32"),
        ({"out": np.ones((3, 6), ">f4")}, gm.DTypeError, "out is >f4"),
        ({"out": np.ones((3, 6), complex)}, gm.DTypeError, "out is complex128"),
        ({"a": A.astype(float), "out": f32(3, 6)}, gm.DTypeError, "out is float32, not float64"),
        ({"out": [[1.0] * 6] * 3}, gm.DTypeError, "out must be an array, not list"),
        ({"out": read_only(f32(3, 6))}, ValueError, "out is read-only"),
        ({"out": np.broadcast_to(f32(6), (3, 6))}, ValueError, "out is read-only"),
        ({"beta": 1.0}, ValueError, "beta is 1 without out"),
        # types and names
        ({"a": A.astype(complex)}, gm.DTypeError, "a has dtype complex128"),
        ({"b": B.astype(object)}, gm.DTypeError, "b has dtype object"),
        ({"b": B.astype(str)}, gm.DTypeError, "b has dtype <U"),
        ({"bias": np.ones(6, complex)}, gm.DTypeError, "bias has dtype complex128"),
        ({"alpha": 1j, "out": f32(3, 6)}, TypeError, "alpha must be a number"),
        ({"beta": "1", "out": f32(3, 6)}, TypeError, "beta must be a number"),
        ({"activation": "rellu", "out": f32(3, 6)}, ValueError, "leaky_relu"),
        ({"activation": "softmax", "out": f32(3, 6)}, ValueError, "softmax"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    arguments: dict[str, Any], kind: type[Exception], match: str
) -> None:
    call = {"a": A, "b": B, **arguments}
    before = {name: np.array(call[name]) for name in ("b", "bias", "out") if name in call}
    with pytest.raises(kind, match=match) as caught:
        gm.ops.gemm(**call)
    if "activation" not in call:
        assert str(caught.value).startswith("gemm: ")
    for name, value in before.items():
        np.testing.assert_array_equal(call[name], value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (repeated(2**31, 1), repeated(1, 2**31)),  # 2**64 bytes
        (repeated(2**31, 1), repeated(1, 2**30)),  # 2**63
        (repeated(2**33, 1), repeated(1, 2**33)),  # 2**66 elements
    ],
)
def test_sizes_whose_bytes_overflow(a: Array, b: Array) -> None:
    with pytest.raises(gm.ShapeError, match=rf"gemm: .*{a.shape[0]}, {b.shape[1]}.*overflows"):
        gm.ops.gemm(a, b)


def test_a_result_that_does_not_fit_into_memory() -> None:
    with pytest.raises(MemoryError):
        gm.ops.gemm(repeated(2**30, 1), repeated(1, 2**30))


@pytest.mark.parametrize("dtype", DTYPES)
def test_read_only_inputs_are_fine(dtype: type) -> None:
    a, b, bias = (read_only(np.ones(shape, dtype)) for shape in ((3, 4), (4, 6), (6,)))
    np.testing.assert_array_equal(gm.ops.gemm(a, b, bias=bias), np.full((3, 6), 5))
