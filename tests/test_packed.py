"""PackedMatrix: the bits of the product with the matrix itself, whatever happens to the panels meanwhile."""

import copy
import pickle
import threading

import numpy as np
import pytest
from matrices import DTYPES, LAYOUTS, TRANSPOSES, Array, integers, laid_out, require_same

import gemmule as gm
from gemmule import _core
from gemmule.ops import PackedMatrix

SHAPES = [
    (1, 1, 1),
    (1, 33, 40),
    (5, 1, 7),
    (8, 16, 385),
    (13, 31, 12),
    (64, 100, 70),
    (130, 65, 800),
    (300, 40, 9),
]


def normal(shape: tuple[int, ...], dtype: type, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_bits_are_those_of_the_matrix(isa: str, dtype: type, m: int, n: int, k: int) -> None:
    bias, out = normal((n,), dtype, 1), normal((m, n), dtype, 2)
    for trans_a, trans_b in TRANSPOSES:
        a, b = (
            normal((k, m) if trans_a else (m, k), dtype, 3),
            normal((n, k) if trans_b else (k, n), dtype, 4),
        )
        packed = PackedMatrix(b, trans=trans_b)
        assert packed.shape == (k, n)
        assert packed.dtype == dtype
        assert packed.nbytes >= b.nbytes
        # (k + 3) roundings on each side, alpha up to 2; the activations do not enlarge a difference.
        left, right = np.abs(a.T if trans_a else a), np.abs(b.T if trans_b else b)
        bound = 4 * (k + 3) * np.finfo(dtype).eps * (left @ right + np.abs(bias) + np.abs(out))
        for options in [{}, {"bias": bias, "activation": "relu"}, {"alpha": 0.5, "activation": "tanh"}]:
            want = gm.ops.gemm(a, b, trans_a=trans_a, trans_b=trans_b, **options)
            require_same(gm.ops.gemm(a, packed, trans_a=trans_a, **options), want, bound)
        want = gm.ops.gemm(a, b, out.copy(), 2.0, -1.0, trans_a, trans_b)
        require_same(gm.ops.gemm(a, packed, out.copy(), 2.0, -1.0, trans_a), want, bound)
        np.testing.assert_array_equal(packed.unpack(), b.T if trans_b else b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(5)
    a, b = integers(rng, (20, 41), dtype), integers(rng, (41, 35), dtype)
    for layout in LAYOUTS:
        np.testing.assert_array_equal(PackedMatrix(laid_out(b, layout)).unpack(), b)
        packed = PackedMatrix(laid_out(b.T, layout), trans=True)
        out = laid_out(np.full((20, 35), np.nan, dtype), layout)
        assert gm.ops.gemm(laid_out(a, layout), packed, out) is out
        np.testing.assert_array_equal(out, a @ b)


def test_any_team_gives_the_same_bits(threads: int) -> None:
    a, b = normal((64, 800), np.float32), normal((800, 500), np.float32, 1)
    packed = PackedMatrix(b)
    np.testing.assert_array_equal(packed.unpack(), b)
    got = gm.ops.gemm(a, packed)
    gm.set_num_threads(1)
    assert gm.ops.gemm(a, b).tobytes() == got.tobytes()


def test_dense() -> None:
    x, weight, bias = (
        normal((32, 30), np.float32),
        normal((13, 30), np.float32, 1),
        normal((13,), np.float32, 2),
    )
    want = gm.ops.dense(x, weight, bias, "gelu")
    packed = PackedMatrix(weight, trans=True)
    assert gm.ops.dense(x, packed, bias, "gelu").tobytes() == want.tobytes()
    with pytest.raises(gm.ShapeError, match=r"dense: x .*\(32, 30\).*\(13, 30\).*trans=True"):
        gm.ops.dense(x, PackedMatrix(weight))


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7), (2, 3, 5, 7), (0, 7), (3, 0, 7)])
def test_matmul(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    a, b = integers(rng, shape, np.float32), integers(rng, (7, 6), np.float32)
    packed, want = PackedMatrix(b), a @ b
    for got in (gm.ops.matmul(a, packed), a @ packed, gm.ops.matmul(a[..., ::-1], PackedMatrix(b[::-1]))):
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, want)
    out = np.full_like(want, np.nan)
    assert gm.ops.matmul(a, packed, out=out) is out
    np.testing.assert_array_equal(out, want)


def test_empty_sizes(isa: str) -> None:
    for m, n, k in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)]:
        packed = PackedMatrix(np.ones((k, n), np.float32))
        np.testing.assert_array_equal(gm.ops.gemm(np.ones((m, k), np.float32), packed), np.zeros((m, n)))
        assert packed.unpack().shape == (k, n)


def test_alpha_zero_reads_no_panel() -> None:
    packed = PackedMatrix(np.full((3, 4), np.nan))
    np.testing.assert_array_equal(gm.ops.gemm(np.ones((2, 3)), packed, alpha=0), np.zeros((2, 4)))


def test_out_over_the_left_operand() -> None:
    rng = np.random.default_rng(7)
    a, b = integers(rng, (40, 40), np.float32), integers(rng, (40, 40), np.float32)
    want, packed = a @ b, PackedMatrix(b)
    np.testing.assert_array_equal(gm.ops.gemm(a, packed, out=a), want)


def test_refresh_takes_new_values_and_the_matrix_is_a_copy() -> None:
    a, b = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    packed = PackedMatrix(b, trans=True)
    b *= 2
    np.testing.assert_array_equal(gm.ops.gemm(a, packed), np.full((2, 4), 3))
    packed.refresh(b)
    np.testing.assert_array_equal(gm.ops.gemm(a, packed), np.full((2, 4), 6))
    for wrong, kind in [(b.T, gm.ShapeError), (b[0], gm.ShapeError), (b.astype(float), gm.DTypeError)]:
        with pytest.raises(kind):
            packed.refresh(wrong)
    np.testing.assert_array_equal(packed.unpack(), b.T)


def test_another_isa_packs_anew() -> None:
    before = _core.active_isa()
    # Integers: 37 columns end with some that may be made apart, their terms in another order.
    rng = np.random.default_rng(0)
    a, b = integers(rng, (9, 50), np.float32), integers(rng, (50, 37), np.float32)
    packed = PackedMatrix(b)
    try:
        for name in [*_core.supported_isas(), before]:
            _core.force_isa(name)
            np.testing.assert_array_equal(packed.unpack(), b)
            assert gm.ops.gemm(a, packed).tobytes() == gm.ops.gemm(a, b).tobytes()
            packed.refresh(b)
            assert gm.ops.gemm(a, packed).tobytes() == gm.ops.gemm(a, b).tobytes()
    finally:
        _core.force_isa(before)


@pytest.mark.parametrize("trans", [False, True])
def test_copies_and_pickles_carry_the_values(trans: bool) -> None:
    b = normal((6, 9), np.float32)
    packed = PackedMatrix(b, trans=trans)
    for other in (copy.copy(packed), copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert other.shape == packed.shape
        other.refresh(b + 1)
        np.testing.assert_array_equal(other.unpack(), (b + 1).T if trans else b + 1)
    np.testing.assert_array_equal(packed.unpack(), b.T if trans else b)
    assert repr(packed) == f"PackedMatrix({packed.shape[0]} x {packed.shape[1]}, float32)"


def test_readers_see_whole_matrices_while_another_thread_refreshes() -> None:
    """Every value of b is one number, so a row of the product tells whether panels were mixed."""
    packed = PackedMatrix(np.zeros((200, 150), np.float32))
    a, mixed, stop = np.eye(40, 200, dtype=np.float32), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            product = gm.ops.gemm(a, packed)
            if product.min() != product.max():
                mixed.append(product)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for value in range(100):
            packed.refresh(np.full((200, 150), value, np.float32))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not mixed


def test_types_meet_in_that_of_the_packed_matrix() -> None:
    assert PackedMatrix([[1, 2], [3, 4]]).dtype == np.float64
    single = PackedMatrix(np.eye(2, dtype=np.float32))
    for a in (np.eye(2, dtype=np.int64), np.eye(2, dtype=np.float16), np.eye(2, dtype=bool)):
        assert gm.ops.gemm(a, single).dtype == np.float32
    with pytest.raises(gm.DTypeError, match="gemm: a is float64, the packed matrix float32"):
        gm.ops.gemm(np.eye(2), single)
    assert gm.ops.gemm(np.eye(2, dtype=np.float32), PackedMatrix(np.eye(2))).dtype == np.float64


A, B = np.ones((3, 4), np.float32), PackedMatrix(np.ones((4, 6), np.float32))


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"trans_b": True}, ValueError, r"trans_b.*PackedMatrix\(b, trans=True\)"),
        ({"trans_a": True}, gm.ShapeError, r"inner.*\(4, 3\).*\(4, 6\)"),
        ({"a": A[0]}, gm.ShapeError, r"a \(4,\) is not a matrix"),
        ({"a": B}, gm.DTypeError, "a has dtype object"),
        ({"bias": np.ones(5)}, gm.DTypeError, "bias is float64"),
        ({"bias": np.ones(5, np.float32)}, gm.ShapeError, r"bias \(5,\).*6 columns"),
        ({"out": np.ones((3, 5), np.float32)}, gm.ShapeError, r"out \(3, 5\)"),
        ({"out": np.ones((3, 6))}, gm.DTypeError, "out is float64"),
        ({"out": [[0.0]]}, gm.DTypeError, "out must be an array"),
        ({"out": np.broadcast_to(np.float32(1), (3, 6))}, ValueError, "out is read-only"),
        ({"beta": 1.0}, ValueError, "beta is 1 without out"),
        ({"alpha": "1"}, TypeError, "alpha must be a number"),
        ({"activation": "rellu"}, ValueError, "leaky_relu"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        gm.ops.gemm(**{"a": A, "b": B, **arguments})


def test_bad_matrices_and_bad_arguments_of_matmul() -> None:
    for wrong, kind in [
        ([1.0], gm.ShapeError),
        (np.ones((2, 2), complex), gm.DTypeError),
        (B, gm.DTypeError),
    ]:
        with pytest.raises(kind, match="PackedMatrix: b"):
            PackedMatrix(wrong)
    for a, out, kind in [
        (np.float32(1), None, gm.ShapeError),
        (A[:, 1:], None, gm.ShapeError),
        (A, np.ones((3, 5), np.float32), gm.ShapeError),
        (A, np.ones((3, 6)), gm.DTypeError),
        (A, np.broadcast_to(np.float32(1), (3, 6)), ValueError),
    ]:
        with pytest.raises(kind, match="matmul: "):
            gm.ops.matmul(a, B, out=out)
    with pytest.raises(TypeError, match="casting"):
        gm.ops.matmul(A, B, casting="safe")
