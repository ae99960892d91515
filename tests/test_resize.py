"""Upsampling, adaptive means, zero padding and dropout of channels, as functions: against matrices and loops
in float64, the same bits for any number of threads, and what they refuse."""

from functools import cache
from typing import Any, NamedTuple

import image_reference
import numpy as np
import pytest
from image_cases import CHANNELS, channels_first, layouts_in_memory
from matrices import DTYPES
from numpy.typing import NDArray

import gemmule as gm

Array = NDArray[Any]
KINDS = {"nearest": {"mode": "nearest"}, "linear": {"mode": "bilinear"},
         "corners": {"mode": "bilinear", "align_corners": True}}  # fmt: skip
SCALES = [(2.0, 2.0), (3.0, 2.0), (1.5, 2.5), (0.5, 0.75), (1.25, 4.0), (1.0, 2.3)]


class Resizing(NamedTuple):
    """Sizes of one resizing; kind as in image_reference.axis_matrix, scale None where a size is given."""

    kind: str
    shape: tuple[int, int, int, int]
    size: tuple[int, int]
    scale: tuple[float, float] | None
    seed: int

    @property
    def matrices(self) -> tuple[Array, Array]:
        down, across = (
            image_reference.axis_matrix(
                self.kind, self.shape[1 + i], self.size[i], self.scale and self.scale[i]
            )
            for i in (0, 1)
        )
        return down, across

    def draw(self) -> tuple[Array, Array]:
        """x and dy, normal deviates in float64."""
        rng = np.random.default_rng(self.seed)
        count, *_, channels = self.shape
        return rng.standard_normal(self.shape), rng.standard_normal((count, *self.size, channels))

    @property
    def options(self) -> dict[str, Any]:
        if self.kind == "mean":
            return {"size": self.size}
        return KINDS[self.kind] | ({"scale": self.scale} if self.scale else {"size": self.size})


@cache
def resizings() -> list[Resizing]:
    """Larger and smaller, by sizes and by scales, of every kind."""
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(60):
        kind = ["nearest", "linear", "corners", "mean"][seed % 4]
        shape = (
            int(rng.integers(1, 4)),
            *(int(n) for n in rng.integers(1, 12, 2)),
            int(rng.choice(CHANNELS)),
        )
        size = int(rng.integers(1, 15)), int(rng.integers(1, 15))
        scale = SCALES[seed // 8 % len(SCALES)] if seed % 8 < 2 else None
        if scale:
            shape = (shape[0], shape[1] + 2, shape[2] + 2, shape[3])
            size = int(shape[1] * scale[0]), int(shape[2] * scale[1])
        cases.append(Resizing(kind, shape, size, scale, seed))
    for kind in ("nearest", "linear", "corners", "mean"):
        cases.append(Resizing(kind, (2, 1, 1, 3), (5, 4), None, 100))
        cases.append(Resizing(kind, (2, 6, 7, 16), (6, 7), None, 101))
        cases.append(Resizing(kind, (2, 7, 7, 33), (1, 1), None, 102))
        cases.append(Resizing(kind, (1, 800, 3, 2), (2, 1), None, 103))
    return cases


def computed(case: Resizing, x: Array, dy: Array, **more: Any) -> tuple[Array, Array]:
    """y and dx."""
    given = case.options | more
    shape = x.shape
    if case.kind == "mean":
        return gm.ops.adaptive_avg_pool2d(x, **given), gm.ops.adaptive_avg_pool2d_backward(dy, shape, **given)
    return gm.ops.upsample2d(x, **given), gm.ops.upsample2d_backward(dy, shape, **given)


# -- other sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(isa: str, dtype: type) -> None:
    """Along an axis, n terms take a rounding each, in a sum or a product, and so do their weights and the
    division of a mean: n + 2 units of eps / 2, of the sum of the terms' sizes. Where a scale is given, a
    weight is the fraction of a place u, and errs by as much as that, u eps."""
    eps = np.finfo(dtype).eps
    for case in resizings():
        x, dy = (array.astype(dtype) for array in case.draw())
        down, across = case.matrices
        y, dx = computed(case, x, dy)
        for got, given, function, axis in (
            (y, x, image_reference.resize, 1),
            (dx, dy, image_reference.resize_backward, 0),
        ):
            terms = sum(int((matrix != 0).sum(axis).max()) for matrix in (down, across))
            want, size = function(given, down, across), function(abs(given), down, across)
            assert got.dtype == dtype and got.shape == want.shape
            bound = (terms + 4) * eps * size
            if case.kind == "linear" and case.scale:
                bound += 2 * max(case.shape[1:3]) * eps * function(abs(given), down != 0, across != 0)
            assert (abs(got - want) <= bound).all(), f"{case}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers(isa: str, dtype: type) -> None:
    """Copies, and means over powers of two."""
    rng = np.random.default_rng(1)
    exact = [case for case in resizings() if case.kind == "nearest"]
    exact += [
        Resizing("mean", (3, 8, 4, c), size, None, 0) for c in (3, 17) for size in ((4, 4), (2, 1), (8, 2))
    ]
    exact += [Resizing("linear", (2, 5, 6, 9), (10, 12), (2.0, 2.0), 0)]  # weights 1/4 and 3/4
    for case in exact:
        down, across = case.matrices
        x = rng.integers(-64, 65, case.shape).astype(dtype)
        dy = rng.integers(-64, 65, (case.shape[0], *case.size, case.shape[3])).astype(dtype)
        y, dx = computed(case, x, dy)
        np.testing.assert_array_equal(y, image_reference.resize(x, down, across), err_msg=f"{case}")
        np.testing.assert_array_equal(dx, image_reference.resize_backward(dy, down, across))


def test_by_hand() -> None:
    x = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
    nearest = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    np.testing.assert_array_equal(gm.ops.upsample2d(x, 2)[0, ..., 0], nearest)
    row = [1, 1.25, 1.75, 2]
    linear = gm.ops.upsample2d(x, 2, mode="bilinear")[0, ..., 0]
    np.testing.assert_array_equal(linear[0], row)
    np.testing.assert_array_equal(linear[:, 0], [1, 1.5, 2.5, 3])
    corners = gm.ops.upsample2d(x, size=3, mode="bilinear", align_corners=True)[0, ..., 0]
    np.testing.assert_array_equal(corners, [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]])
    line = np.arange(5.0).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(gm.ops.adaptive_avg_pool2d(line, (1, 2))[0, 0, :, 0], [1, 3])
    np.testing.assert_array_equal(gm.ops.adaptive_avg_pool2d(line, (1, 3))[0, 0, :, 0], [0.5, 2, 3.5])


def test_means_are_those_of_other_poolings(isa: str) -> None:
    x = np.random.default_rng(2).standard_normal((3, 12, 8, 17))
    tolerance = {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(
        gm.ops.adaptive_avg_pool2d(x, (4, 2)), gm.ops.avg_pool2d(x, (3, 4)), **tolerance
    )
    np.testing.assert_allclose(
        gm.ops.adaptive_avg_pool2d(x, 1)[:, 0, 0], gm.ops.global_avg_pool2d(x), **tolerance
    )


def test_pixels_of_no_weight_are_not_read(isa: str) -> None:
    for case in resizings():
        x, _ = case.draw()
        x[:, -1, 0], x[:, 0, -1] = np.nan, np.inf
        down, across = case.matrices
        met = image_reference.resize(~np.isfinite(x), down, across) > 0
        np.testing.assert_array_equal(~np.isfinite(computed(case, x, case.draw()[1])[0]), met)


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for case in resizings():
        x, dy = map(channels_first, case.draw())
        tensor = torch.tensor(x, requires_grad=True)
        if case.kind == "mean":
            y = functional.adaptive_avg_pool2d(tensor, case.size)
        else:
            given = {"size": case.size} if case.scale is None else {"scale_factor": case.scale}
            corners = None if case.kind == "nearest" else case.kind == "corners"
            mode = KINDS[case.kind]["mode"]
            y = functional.interpolate(tensor, mode=mode, align_corners=corners, **given)
        y.backward(torch.tensor(dy))
        got = computed(case, x, dy, layout="channels_first")
        for a, b in zip(got, (y.detach(), tensor.grad), strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-11, atol=1e-11, err_msg=f"{case}")


# -- zeros around images -------------------------------------------------------------------------------------

FRAMES: list[tuple[Any, tuple[int, int, int, int]]] = [
    (0, (0, 0, 0, 0)), (2, (2, 2, 2, 2)), ((1, 3), (1, 1, 3, 3)), ((0, 2, 1, 0), (0, 2, 1, 0)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("padding", "sides"), FRAMES)
def test_zero_padding(dtype: type, padding: Any, sides: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = sides
    rng = np.random.default_rng(3)
    for shape in [(1, 1, 1, 1), (3, 5, 4, 7), (2, 9, 8, 33)]:
        x = rng.standard_normal(shape).astype(dtype)
        want = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        np.testing.assert_array_equal(gm.ops.zero_pad2d(x, padding), want)
        dy = rng.standard_normal(want.shape).astype(dtype)
        dx = gm.ops.zero_pad2d_backward(dy, padding)
        np.testing.assert_array_equal(dx, dy[:, top : top + shape[1], left : left + shape[2]])
        first = gm.ops.zero_pad2d(channels_first(x), padding, layout="channels_first")
        np.testing.assert_array_equal(first, channels_first(want))


# -- dropout of channels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_dropout_of_channels(isa: str, threads: int, dtype: type, rate: float) -> None:
    """The mask is that of `dropout` for one pixel, on all of them; the gradient's is the same."""
    for shape in [(3, 1, 1, 1), (40, 5, 3, 17), (7, 20, 20, 65)]:
        x = np.random.default_rng(4).standard_normal(shape).astype(dtype)
        mask = gm.ops.dropout(np.ones((shape[0], shape[3]), dtype), rate, rng=5, step=3, layer=2)
        y = gm.ops.dropout2d(x, rate, rng=5, step=3, layer=2)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, x * mask[:, None, None])
        first = gm.ops.dropout2d(channels_first(x), rate, rng=5, step=3, layer=2, layout="channels_first")
        np.testing.assert_array_equal(first, channels_first(y))
        assert gm.ops.dropout2d(x, rate, rng=5, step=3, layer=2, out=x) is x
        np.testing.assert_array_equal(x, y)


def test_as_many_channels_are_dropped_as_asked() -> None:
    """Of 40,000 draws with probability 0.3 the share strays by 0.0023; five times that is allowed."""
    y = gm.ops.dropout2d(np.ones((400, 2, 2, 100)), 0.3, rng=0)
    kept = y[:, 0, 0] > 0
    assert abs(kept.mean() - 0.7) < 0.0115
    assert (y == np.where(kept[:, None, None], 1 / (1 - 0.3), 0)).all()
    other = gm.ops.dropout2d(np.ones((400, 2, 2, 100)), 0.3, rng=0, step=1)
    assert abs(((other > 0) == (y > 0)).mean() - 0.58) < 0.02


# -- all of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(isa: str, dtype: type) -> None:
    cases = [*resizings()[:12], Resizing("linear", (5, 20, 21, 33), (41, 40), None, 0),
             Resizing("mean", (5, 40, 41, 33), (7, 6), None, 0),
             Resizing("nearest", (5, 20, 21, 33), (40, 42), (2.0, 2.0), 0)]  # fmt: skip
    for case in cases:
        x, dy = (array.astype(dtype) for array in case.draw())
        results = set()
        try:
            for count in (1, 2, 3, 7):
                gm.set_num_threads(count)
                arrays = *computed(case, x, dy), gm.ops.zero_pad2d(x, 2), gm.ops.zero_pad2d_backward(x, 0)
                results.add(tuple(array.tobytes() for array in arrays))
        finally:
            gm.set_num_threads(None)
        assert len(results) == 1, f"{case}"


def test_channels_first_gives_the_same_bits() -> None:
    for case in resizings():
        x, dy = (array.astype(np.float32) for array in case.draw())
        got = computed(case, channels_first(x), channels_first(dy), layout="channels_first")
        for a, b in zip(got, computed(case, x, dy), strict=True):
            np.testing.assert_array_equal(a, channels_first(b), err_msg=f"{case}")


def test_any_strides_and_out() -> None:
    for case in resizings()[1:4]:
        x, dy = (array.astype(np.float32) for array in case.draw())
        want = computed(case, x, dy)
        for a, b in zip(layouts_in_memory(x), layouts_in_memory(dy), strict=True):
            for got, exact in zip(computed(case, a, b), want, strict=True):
                np.testing.assert_array_equal(got, exact)
        for out in layouts_in_memory(np.empty_like(want[0])):
            if out.flags.writeable:
                function = gm.ops.adaptive_avg_pool2d if case.kind == "mean" else gm.ops.upsample2d
                assert function(x, out=out, **case.options) is out
                np.testing.assert_array_equal(out, want[0])
    square = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    expected = gm.ops.upsample2d(square, size=4, mode="bilinear", align_corners=True)
    assert gm.ops.upsample2d(square, 1, mode="bilinear", out=square) is square
    np.testing.assert_array_equal(square, expected)
    padded = gm.ops.zero_pad2d(square[:, :2], (1, 0))
    assert gm.ops.zero_pad2d(square[:, :2], (1, 0), out=square) is square
    np.testing.assert_array_equal(square, padded)


def test_an_empty_batch() -> None:
    x = np.empty((0, 4, 6, 3))
    assert gm.ops.upsample2d(x, 2).shape == (0, 8, 12, 3)
    assert gm.ops.upsample2d_backward(np.empty((0, 8, 12, 3)), x.shape, 2).shape == x.shape
    assert gm.ops.adaptive_avg_pool2d(x, 2).shape == (0, 2, 2, 3)
    assert gm.ops.zero_pad2d(x, 1).shape == (0, 6, 8, 3)
    assert gm.ops.zero_pad2d_backward(x, 1).shape == (0, 2, 4, 3)
    assert gm.ops.dropout2d(x, 0.5, rng=0).shape == x.shape


# -- bad input -----------------------------------------------------------------------------------------------

X = np.ones((2, 5, 6, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({}, TypeError, "upsample2d takes a scale or a size, not neither"),
        ({"scale": 2, "size": 3}, TypeError, "upsample2d takes a scale or a size, not both"),
        ({"scale": 0}, ValueError, "scale is 0; it must be finite and above 0"),
        ({"scale": (2, -1.0)}, ValueError, "scale is -1.0"),
        ({"scale": float("nan")}, ValueError, "scale is nan"),
        ({"scale": (1, 2, 3)}, TypeError, "scale must be a number or 2 of them"),
        ({"scale": "2"}, TypeError, "scale must be a number, not '2'"),
        ({"scale": 0.1}, gm.ShapeError, "5 x 6 pixels, (0.1, 0.1) times as large, has none"),
        ({"scale": 1e300}, gm.ShapeError, "2**30 of them along an axis"),
        ({"scale": 1.5e8}, gm.ShapeError, "overflows 64 bits"),
        ({"size": 0}, ValueError, "size is 0; it must be at least 1"),
        ({"size": (2, 2.5)}, TypeError, "size must be an integer or 2 of them"),
        ({"scale": 2, "mode": "bicubic"}, ValueError, "mode 'bicubic'; known: nearest, bilinear"),
        ({"scale": 2, "align_corners": True}, ValueError, "align_corners is for mode 'bilinear'"),
        ({"scale": 2, "x": X[0]}, gm.ShapeError, "x has shape (5, 6, 4); it must be (N, H, W, C)"),
        ({"scale": 2, "x": X.astype("U1")}, gm.DTypeError, "x has dtype <U1"),
        ({"scale": 2, "layout": "NHWC"}, ValueError, "layout 'NHWC'; known: channels_last"),
        ({"scale": 2, "out": np.empty((2, 10, 12, 3), np.float32)}, gm.ShapeError, "out has shape"),
    ],
)  # fmt: skip
def test_bad_upsampling(change: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        gm.ops.upsample2d(**({"x": X} | change))
    assert message in str(caught.value) and "upsample2d" in str(caught.value)


@pytest.mark.parametrize("padding", [-1, (0, -1), 2**31, "same", (1, 2, 3), 1.5])
def test_bad_padding(padding: Any) -> None:
    kind = TypeError if isinstance(padding, str | float) or padding == (1, 2, 3) else ValueError
    for function in (gm.ops.zero_pad2d, gm.ops.zero_pad2d_backward):
        with pytest.raises(kind, match=f"{function.__name__}: padding"):
            function(X, padding)


def test_other_bad_input() -> None:
    with pytest.raises(gm.ShapeError, match=r"upsample2d_backward: dy has shape .*, not \(2, 10, 12, 4\)"):
        gm.ops.upsample2d_backward(X, X.shape, 2)
    with pytest.raises(gm.ShapeError, match="adaptive_avg_pool2d_backward: dy has shape"):
        gm.ops.adaptive_avg_pool2d_backward(X, X.shape, 2)
    with pytest.raises(TypeError, match="upsample2d_backward: shape must be the four sizes"):
        gm.ops.upsample2d_backward(X, (5, 6, 4), 2)
    with pytest.raises(ValueError, match="adaptive_avg_pool2d: size is 0"):
        gm.ops.adaptive_avg_pool2d(X, 0)
    with pytest.raises(gm.ShapeError, match=r"zero_pad2d_backward: dy has shape .* leaves nothing of"):
        gm.ops.zero_pad2d_backward(X, 3)
    with pytest.raises(gm.ShapeError, match=r"zero_pad2d: shape \(2, .* is that of no images in 64 bits"):
        gm.ops.zero_pad2d(X, 2**31 - 1)
    with pytest.raises(ValueError, match="dropout2d: rate is 1; it must be at least 0 and below 1"):
        gm.ops.dropout2d(X, 1, rng=0)
    with pytest.raises(ValueError, match="dropout2d: step is -1"):
        gm.ops.dropout2d(X, 0.5, rng=0, step=-1)
    with pytest.raises(gm.ShapeError, match="dropout2d: x has shape"):
        gm.ops.dropout2d(X[0], 0.5, rng=0)
