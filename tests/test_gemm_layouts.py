"""GEMM: any strides, `out` over an input, and nothing touched but what is said."""

import sys

import numpy as np
import pytest
from helpers import run_python
from matrices import DTYPES, LAYOUTS, Array, integers, laid_out

import gemmule as gm


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_3_any_layout_gives_the_result_of_a_contiguous_copy(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(7)
    for m, n, k in [(1, 20, 30), (20, 1, 385), (2, 3, 769), (17, 35, 41), (50, 130, 390)]:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        want = a @ b
        for layout_a in LAYOUTS:
            for layout_b in LAYOUTS:
                got = gm.ops.gemm(laid_out(a, layout_a), laid_out(b, layout_b))
                np.testing.assert_array_equal(got, want, err_msg=f"{layout_a} {layout_b}")
        for layout in LAYOUTS:
            out = laid_out(np.full((m, n), np.nan, dtype), layout)
            np.testing.assert_array_equal(gm.ops.gemm(a, b, out=out), want, err_msg=f"out {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_3_zero_and_huge_strides(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(8)
    row, column = integers(rng, (1, 40), dtype), integers(rng, (40, 1), dtype)
    wide = integers(rng, (40, 33), dtype)
    a = np.broadcast_to(row, (13, 40))
    np.testing.assert_array_equal(gm.ops.gemm(a, wide), np.ascontiguousarray(a) @ wide)
    b = np.broadcast_to(column, (40, 33))
    np.testing.assert_array_equal(gm.ops.gemm(wide.T, b), wide.T @ np.ascontiguousarray(b))
    # Rows 8 MB apart: only the touched pages of the buffer exist.
    far = np.zeros((20, 1 << 20), dtype)[:, :: 1 << 14]
    far[...] = integers(rng, far.shape, dtype)
    other = integers(rng, (far.shape[1], 9), dtype)
    np.testing.assert_array_equal(gm.ops.gemm(far, other), np.ascontiguousarray(far) @ other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_4_out_overlapping_an_input_is_correct(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(9)
    n = 35
    values = integers(rng, (n, n), dtype)
    other = integers(rng, (n, n), dtype)
    buffer = np.zeros(2 * n * n, dtype)
    for start in (0, 1, n, n * n - 1):
        for transposed in (False, True):
            for side in ("a", "b"):
                operand = buffer[start : start + n * n].reshape(n, n)
                operand[...] = values
                out = buffer[: n * n].reshape(n, n)
                out = out.T if transposed else out
                a, b = (operand, other) if side == "a" else (other, operand)
                want, before = a @ b, buffer.copy()
                got = gm.ops.gemm(a, b, out=out)
                np.testing.assert_array_equal(got, want, err_msg=f"{side} from {start}, {transposed}")
                np.testing.assert_array_equal(buffer[n * n :], before[n * n :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_fault_4_out_overlapping_vectors_and_what_is_added(isa: str, dtype: type) -> None:
    """A row or a column of an operand as `out`, the bias in `out`, and an `out` that is read too."""
    rng = np.random.default_rng(13)
    for n in (3, 40):
        square, bias = integers(rng, (n, n), dtype), integers(rng, (n,), dtype)
        for part in (np.s_[1:2], np.s_[:, 1:2], np.s_[:2], np.s_[:, :2]):
            buffer = square.copy()
            out = buffer[part]
            row = out.shape[0] < n
            want = square[part] @ square if row else square @ square[part]
            got = gm.ops.gemm(out, buffer, out=out) if row else gm.ops.gemm(buffer, out, out=out)
            np.testing.assert_array_equal(got, want)
        out = square.copy()
        out[1] = bias
        want = square @ square + bias
        np.testing.assert_array_equal(gm.ops.gemm(square, square, out=out, bias=out[1]), want)
        out = square.copy()
        want = square @ square + 2 * square + bias
        np.testing.assert_array_equal(gm.ops.gemm(out, square, out=out, beta=2, bias=bias), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [1, 2])
def test_nothing_outside_out_is_written(isa: str, dtype: type, step: int) -> None:
    """out is a window of a larger array of NaN with a payload of its own in each element."""
    rng = np.random.default_rng(10)
    bits = np.uint32 if dtype == np.float32 else np.uint64
    for m in (1, 2, 3, 5, 13, 14, 29):
        for n in (1, 2, 7, 17, 33, 63, 65):
            for k in (1, 3, 390, 769):
                quiet_nan = np.array(np.nan, dtype).view(bits)
                shape = (m + 6, step * n + 70)
                frame = (quiet_nan + np.arange(np.prod(shape), dtype=bits).reshape(shape)).view(dtype)
                before = frame.view(bits).copy()
                window = frame[3:-3, 32 : 32 + step * n : step]
                a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
                np.testing.assert_array_equal(gm.ops.gemm(a, b, out=window), a @ b)
                outside = np.ones(shape, bool)
                outside[3:-3, 32 : 32 + step * n : step] = False
                np.testing.assert_array_equal(frame.view(bits)[outside], before[outside])


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_outside_operands_is_touched(bf16_isa: str) -> None:
    """Between pages that may not be touched. A stray load ends the process: it is a process of its own."""
    done = run_python(f"import guarded; guarded.multiply({bf16_isa!r})")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trans_b", [False, True])
def test_bits_do_not_depend_on_where_operands_lie_in_lines(isa: str, dtype: type, trans_b: bool) -> None:
    """Products of few rows or columns begin their vectors where lines begin; sums keep their order."""
    rng = np.random.default_rng(20)
    size = np.dtype(dtype).itemsize

    def at(offset: int, values: Array) -> Array:
        memory = np.empty(values.nbytes + 128, np.uint8)
        start = -memory.ctypes.data % 64 + offset
        view = memory[start : start + values.nbytes].view(dtype).reshape(values.shape)
        view[...] = values
        return view

    shapes = [(1, 512, 512), (2, 512, 272), (3, 128, 320), (2, 17, 1000), (1, 5000, 33), (2, 8192, 1024)]
    shapes += [(4, 512, 4), (8, 784, 10), (32, 2048, 10), (10, 1024, 32), (16, 304, 1), (5, 400, 5)]
    for m, k, n in shapes:
        a, bias = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal(n).astype(dtype)
        b = rng.standard_normal((n, k) if trans_b else (k, n)).astype(dtype)
        exact = a.astype(float) @ (b.T if trans_b else b).astype(float) + bias
        first = gm.ops.gemm(at(0, a), at(0, b), trans_b=trans_b, bias=bias)
        error = np.abs(a).astype(float) @ np.abs(b.T if trans_b else b) + np.abs(bias)
        assert (np.abs(first - exact) <= (k + 1) * np.finfo(dtype).eps * error).all(), (m, k, n)
        for offset_a, offset_b in [(16, 16), (48, 16), (0, 16), (16, 0), (64 - size, 8), (24, 64 - size)]:
            got = gm.ops.gemm(at(offset_a, a), at(offset_b, b), trans_b=trans_b, bias=bias)
            np.testing.assert_array_equal(got, first, err_msg=f"{(m, k, n)}, {offset_a} and {offset_b}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_outer_products_into_any_part_of_a_line(isa: str, dtype: type) -> None:
    """Their rows of C are begun so that later stores end with a line, wherever the array lies."""
    rng = np.random.default_rng(15)
    for m, k, n in [(1, 1, 96), (3, 2, 256), (10, 1, 2048), (13, 4, 272), (30, 3, 131), (9, 5, 256)]:
        a, b, bias = (integers(rng, shape, dtype) for shape in [(k, m), (k, n), (n,)])
        want = np.maximum(a.T @ b + bias, 0)
        for offset in range(0, 17, 3):
            buffer = np.full(m * n + 40, 99, dtype)
            out = buffer[offset : offset + m * n].reshape(m, n)
            gm.ops.gemm(a, b, trans_a=True, bias=bias, activation="relu", out=out)
            np.testing.assert_array_equal(out, want, err_msg=f"{(m, k, n)} at {offset}")
            assert (buffer[:offset] == 99).all() and (buffer[offset + m * n :] == 99).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_teams_write_into_any_part_of_a_line(isa: str, dtype: type, thread_counts: list[int]) -> None:
    """Where rows of C begin within lines decides where members divide them, and never what they hold."""
    rng = np.random.default_rng(19)
    for m, k, n in [(33, 90, 160), (96, 40, 128), (130, 20, 208), (100, 70, 72), (16, 300, 110)]:
        for trans_b in (False, True):
            a = integers(rng, (m, k), dtype)
            b = integers(rng, (n, k) if trans_b else (k, n), dtype)
            want = a @ (b.T if trans_b else b)
            for count in thread_counts:
                gm.set_num_threads(count)
                for offset in range(0, 17, 3):
                    buffer = np.full(m * n + 40, 99, dtype)
                    out = buffer[offset : offset + m * n].reshape(m, n)
                    gm.ops.gemm(a, b, trans_b=trans_b, out=out)
                    np.testing.assert_array_equal(out, want, err_msg=f"{(m, k, n)} {count} at {offset}")
                    assert (buffer[:offset] == 99).all() and (buffer[offset + m * n :] == 99).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_column_of_any_depth(isa: str, dtype: type) -> None:
    """With and without gaps in the column, and with all that is added to it."""
    rng = np.random.default_rng(16)
    for m in (1, 7, 16, 17, 100):
        for k in (1, 5, 6, 8, 10, 16, 17, 33, 70):
            a, b, bias = (integers(rng, shape, dtype) for shape in [(m, k), (1, k), (1,)])
            before = integers(rng, (m, 1), dtype)
            want = np.maximum(2 * (a @ b.T) + before + bias, 0)
            for gap in (1, 3):
                buffer = np.full((m + 1) * gap, 99, dtype)
                out = buffer[: m * gap : gap].reshape(m, 1)
                out[...] = before
                gm.ops.gemm(a, b, trans_b=True, alpha=2, beta=1, bias=bias, activation="relu", out=out)
                np.testing.assert_array_equal(out, want, err_msg=f"{m} x {k}, gap {gap}")
                out[...] = 99
                assert (buffer == 99).all()
