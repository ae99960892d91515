"""Products whose operands lie between pages that may not be touched; run by test_gemm_layouts.py."""

import ctypes
import itertools
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from matrices import DTYPES, TRANSPOSES, Array, integers

import gemmule as gm
from gemmule import _core

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """`capacity` bytes with a forbidden page before and behind."""

    def __init__(self, capacity: int) -> None:
        page = mmap.PAGESIZE
        capacity = -(-capacity // page) * page
        self.memory = np.frombuffer(mmap.mmap(-1, capacity + 2 * page), np.uint8)
        start = self.memory.ctypes.data
        for address in (start, start + page + capacity):
            if _libc.mprotect(address, page, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.inner = self.memory[page : page + capacity]

    def place(self, values: Array, gap: int, at_end: bool) -> Array:
        """`values` with `gap` elements between their rows, flush with the first or the last page."""
        rows, cols = values.shape
        count = (rows - 1) * (cols + gap) + cols
        size = count * values.itemsize
        flat = (self.inner[-size:] if at_end else self.inner[:size]).view(values.dtype)
        steps = ((cols + gap) * values.itemsize, values.itemsize)
        view = np.lib.stride_tricks.as_strided(flat, values.shape, steps)
        view[...] = values
        return view


def shapes() -> Iterator[tuple[int, int, int]]:
    yield from itertools.product([1, 2, 3, 13, 15], [1, 2, 7, 17, 33, 65], [1, 3, 17, 385])
    yield from [(64, 40, 33), (33, 100, 64), (150, 131, 40), (40, 200, 70), (1, 500, 40), (500, 1, 40)]


def multiply(isa: str) -> None:
    """Every type, orientation, gap and end, then stacks, against NumPy."""
    _core.force_isa(isa)
    rng = np.random.default_rng(14)
    memories = [Guarded(1 << 20) for _ in range(4)]

    def check(
        shape: tuple[int, int, int], dtype: Any, trans_a: bool, trans_b: bool, gap: int, end: bool
    ) -> None:
        m, n, k = shape
        a, b, bias = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype), integers(rng, (1, n), dtype)
        operands = a.T if trans_a else a, b.T if trans_b else b, np.full((m, n), np.nan, dtype), bias
        x, y, out, z = (memory.place(v, gap, end) for memory, v in zip(memories, operands, strict=True))
        gm.ops.gemm(x, y, out, trans_a=trans_a, trans_b=trans_b, bias=z[0])
        np.testing.assert_array_equal(out, a @ b + bias)
        if dtype == np.float32:
            gm.ops.gemm(x, y, out, trans_a=trans_a, trans_b=trans_b, bias=z[0], precision="bf16")
            np.testing.assert_array_equal(out, a @ b + bias)

    for i, shape in enumerate(shapes()):
        for dtype, (trans_a, trans_b), end in itertools.product(DTYPES, TRANSPOSES, (False, True)):
            check(shape, dtype, trans_a, trans_b, gap=3 * (i % 2), end=end)
    # Rows that begin alike within lines, inside one where they are flush with the last page.
    for few, dtype, (trans_a, trans_b), end in itertools.product(
        (1, 2, 3, 10), DTYPES, TRANSPOSES, (False, True)
    ):
        check((few, 300, 300), dtype, trans_a, trans_b, gap=4, end=end)
        check((300, few, 300), dtype, trans_a, trans_b, gap=4, end=end)
    for n, dtype, gap, end in itertools.product([2, 4, 7, 17, 33], DTYPES, (0, 3), (False, True)):
        a, b, out = (
            memory.place(integers(rng, (5 * n, n), dtype), gap, end).reshape(5, n, n)
            for memory in memories[:3]
        )
        np.testing.assert_array_equal(gm.ops.matmul(a, b, out=out), np.matmul(a, b))


def scale_bytes(isa: str) -> None:
    """Bytes and what becomes of them, flush with either end."""
    _core.force_isa(isa)
    memories = [Guarded(1 << 13) for _ in range(2)]
    for count, dtype, end in itertools.product(range(1, 70), DTYPES, (False, True)):
        values = np.arange(count, dtype=np.uint8)[None]
        x = memories[0].place(values, 0, end)
        out = memories[1].place(np.zeros((1, count), dtype), 0, end)
        _core.scale_bytes(x, 0.5, out)
        np.testing.assert_array_equal(out, values * 0.5)


def augment() -> None:
    """Images and what becomes of them, flush with either end."""
    memories = [Guarded(1 << 13) for _ in range(2)]
    shapes = [(1, 1, 1), (4, 5, 1), (5, 3, 3), (3, 7, 4), (2, 3, 7)]
    for shape, dtype, end in itertools.product(shapes, (np.uint8, *DTYPES), (False, True)):
        count = 8 * int(np.prod(shape))
        most = shape[0] - 1, shape[1] - 1
        for fill in ("constant", "edge", "reflect"):
            augmenter = _core.Augmenter(shape, np.dtype(dtype).name, 0.5, 0.5, *most, fill, 1.0)
            x = memories[0].place(np.ones((1, count), dtype), 0, end).reshape(8, *shape)
            out = memories[1].place(np.zeros((1, count), dtype), 0, end).reshape(8, *shape)
            augmenter.apply(x, out, 3, 4)
            assert (out == 1).all()
