"""Max and average pooling: the kernels on arrays, and as ops of a graph."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from guarded import Guarded
from helpers import Array, run_python

import gemmule as gm
from gemmule import _core

DTYPES = ["float32", "float64"]


@dataclass(frozen=True)
class Window:
    """As the kernels take it, and a sample it may slide over."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def spelled(self) -> tuple[Any, ...]:
        return self.kernel, self.stride, self.padding

    def outputs(self, height: int, width: int) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        return (
            (height + top + bottom - self.kernel[0]) // self.stride[0] + 1,
            (width + left + right - self.kernel[1]) // self.stride[1] + 1,
        )

    def taps(self, height: int, width: int) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
        """Of each window (i, j): the (number, row, column) of its taps inside the image."""
        rows, cols = self.outputs(height, width)
        found = []
        for i, j in itertools.product(range(rows), range(cols)):
            inside = []
            for r, s in itertools.product(range(self.kernel[0]), range(self.kernel[1])):
                row, col = i * self.stride[0] - self.padding[0] + r, j * self.stride[1] - self.padding[2] + s
                if 0 <= row < height and 0 <= col < width:
                    inside.append((r * self.kernel[1] + s, row, col))
            found.append((i, j, inside))
        return found


WINDOWS = [
    Window((2, 2), (2, 2), (0, 0, 0, 0)),  # the usual one
    Window((3, 3), (2, 2), (1, 1, 1, 1)),  # overlapping, with padding
    Window((3, 2), (1, 1), (2, 0, 0, 1)),
    Window((2, 1), (3, 4), (0, 0, 0, 0)),  # gaps
    Window((2, 3), (4, 3), (1, 1, 2, 2)),
    Window((1, 1), (1, 1), (0, 0, 0, 0)),
    Window((5, 4), (3, 2), (4, 4, 3, 3)),
    Window((7, 9), (1, 1), (0, 0, 0, 0)),  # one window: the whole image
]
SIZES = [(7, 9), (12, 10)]
CHANNELS = [1, 2, 3, 4, 5, 8, 16, 17, 31, 33, 64, 99]


def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """y and places by the definition; of several NaN the last is kept, as in PyTorch."""
    count, height, width, channels = x.shape
    y = np.empty((count, *window.outputs(height, width), channels), x.dtype)
    places = np.empty(y.shape, np.uint8)
    for i, j, taps in window.taps(height, width):
        values = np.stack([x[:, row, col] for _, row, col in taps])
        nan = np.isnan(values)
        first = np.argmax(np.where(nan, np.inf, values), axis=0)
        last_nan = len(taps) - 1 - np.argmax(nan[::-1], axis=0)
        best = np.where(nan.any(axis=0), last_nan, first)
        y[:, i, j] = np.take_along_axis(values, best[None], 0)[0]
        places[:, i, j] = np.array([number for number, *_ in taps])[best]
    return y, places


def max_pool_backward(dy: Array, places: Array, shape: tuple[int, ...], window: Window) -> Array:
    dx = np.zeros(shape)
    for i, j, taps in window.taps(*shape[1:3]):
        for number, row, col in taps:
            dx[:, row, col] += np.where(places[:, i, j] == number, dy[:, i, j], 0)
    return dx


def avg_pool(x: Array, window: Window, count_padding: bool) -> Array:
    y = np.zeros((len(x), *window.outputs(*x.shape[1:3]), x.shape[3]))
    for i, j, taps in window.taps(*x.shape[1:3]):
        for _, row, col in taps:
            y[:, i, j] += x[:, row, col]
        y[:, i, j] /= np.prod(window.kernel) if count_padding else len(taps)
    return y


def avg_pool_backward(dy: Array, shape: tuple[int, ...], window: Window, count_padding: bool) -> Array:
    dx = np.zeros(shape)
    for i, j, taps in window.taps(*shape[1:3]):
        for _, row, col in taps:
            dx[:, row, col] += dy[:, i, j] / (np.prod(window.kernel) if count_padding else len(taps))
    return dx


def ran_max(x: Array, window: Window) -> tuple[Array, Array]:
    y = np.full((len(x), *window.outputs(*x.shape[1:3]), x.shape[3]), np.nan, x.dtype)
    places = np.full(y.shape, 255, np.uint8)
    _core.max_pool2d(x, y, places, *window.spelled)
    return y, places


def ran_backward(dy: Array, places: Array, shape: tuple[int, ...], window: Window) -> Array:
    dx = np.full(shape, np.nan, dy.dtype)
    _core.max_pool2d_backward(dy, places, dx, *window.spelled)
    return dx


def ran_avg(x: Array, window: Window, count_padding: bool) -> Array:
    y = np.full((len(x), *window.outputs(*x.shape[1:3]), x.shape[3]), np.nan, x.dtype)
    _core.avg_pool2d(x, y, *window.spelled, count_padding)
    return y


def ran_avg_backward(dy: Array, shape: tuple[int, ...], window: Window, count_padding: bool) -> Array:
    dx = np.full(shape, np.nan, dy.dtype)
    _core.avg_pool2d_backward(dy, dx, *window.spelled, count_padding)
    return dx


def images(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """Few different values, so that many windows have ties."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_max_is_exact_and_ties_go_to_the_first(
    isa: str, dtype: str, window: Window, size: tuple[int, int]
) -> None:
    for channels in CHANNELS:
        x = images((2, *size, channels), dtype, channels)
        y, places = ran_max(x, window)
        wanted, wanted_places = max_pool(x, window)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(places, wanted_places)
        without = np.full_like(y, np.nan)
        _core.max_pool2d(x, without, None, *window.spelled)
        np.testing.assert_array_equal(without, wanted)
        dy = images(y.shape, dtype, channels + 1)  # small integers: their sums are exact
        np.testing.assert_array_equal(
            ran_backward(dy, places, x.shape, window), max_pool_backward(dy, places, x.shape, window)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("count_padding", [True, False])
def test_averages(isa: str, dtype: str, window: Window, count_padding: bool) -> None:
    """A sum of n terms errs by at most (n - 1) eps / 2 of the sum of their magnitudes, in any order, and the
    division, in the gradient a rounded reciprocal and a product, adds 2 eps / 2."""
    eps, n = np.finfo(dtype).eps, int(np.prod(window.kernel))
    for size, channels in itertools.product(SIZES, CHANNELS):
        rng = np.random.default_rng(channels)
        x = rng.standard_normal((2, *size, channels)).astype(dtype)
        bound = (n + 1) * eps / 2 * avg_pool(np.abs(x), window, count_padding)
        y = ran_avg(x, window, count_padding)
        assert (np.abs(y - avg_pool(x, window, count_padding)) <= bound).all()
        dy = rng.standard_normal(y.shape).astype(dtype)
        bound = (n + 1) * eps / 2 * avg_pool_backward(np.abs(dy), x.shape, window, count_padding)
        dx = ran_avg_backward(dy, x.shape, window, count_padding)
        assert (np.abs(dx - avg_pool_backward(dy, x.shape, window, count_padding)) <= bound).all()


def random_window(rng: np.random.Generator) -> Window:
    kernel = rng.integers(1, 8, 2)
    sides = [int(rng.integers(0, k)) for k in kernel for _ in range(2)]
    return Window((kernel[0], kernel[1]), tuple(rng.integers(1, 6, 2)), tuple(sides))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_random_shapes(isa: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    window = random_window(rng)
    shape = tuple(int(n) for n in (*rng.integers([0, 7, 7], [4, 20, 20]), rng.integers(1, 70)))
    for dtype in DTYPES:
        x = images(shape, dtype, seed)
        y, places = ran_max(x, window)
        wanted, wanted_places = max_pool(x, window)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(places, wanted_places)
        dx = ran_backward(y, places, x.shape, window)
        np.testing.assert_array_equal(dx, max_pool_backward(y, places, x.shape, window))
        for count_padding in (True, False):
            # Sums of small integers are exact, and then the division rounds once.
            wanted = avg_pool(x, window, count_padding).astype(dtype)
            np.testing.assert_array_equal(ran_avg(x, window, count_padding), wanted)


def test_long_windows_are_summed_in_pieces(isa: str) -> None:
    """A window of 16,000 taps: an accumulator that took them all would err by up to their number; one takes
    384 of a row, then come the parts of the row and the rows."""
    x = np.random.default_rng(0).random((1, 20, 800, 9)).astype(np.float32)
    window = Window((20, 800), (1, 1), (0, 0, 0, 0))
    wanted = avg_pool(x, window, True)
    eps = np.finfo(np.float32).eps
    assert (np.abs(ran_avg(x, window, True) - wanted) <= (384 + 3 + 20) * eps / 2 * wanted).all()
    constant = np.full_like(x, 0.1)
    np.testing.assert_allclose(ran_avg(constant, window, True), 0.1, rtol=(384 + 3 + 20) * eps / 2)


@pytest.mark.parametrize("kernel", range(1, 16))
def test_the_mean_of_equal_numbers_is_theirs(isa: str, kernel: int) -> None:
    window = Window((kernel, kernel), (1, 1), (0, 0, 0, 0))
    x = np.full((1, kernel, kernel, 5), 3.0, np.float32)
    np.testing.assert_array_equal(ran_avg(x, window, True), np.full((1, 1, 1, 5), 3.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [3, 17, 64])
def test_infinity_and_nan(isa: str, dtype: str, window: Window, channels: int) -> None:
    rng = np.random.default_rng(channels)
    values = np.array([-np.inf, -np.inf, np.inf, np.nan, 0.0, -0.0, -1.0])
    x = values[rng.integers(0, len(values), (3, 7, 9, channels))].astype(dtype)
    y, places = ran_max(x, window)
    wanted, wanted_places = max_pool(x, window)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(places, wanted_places)
    with np.errstate(invalid="ignore"):
        for count_padding in (True, False):
            wanted = avg_pool(x, window, count_padding).astype(dtype)
            np.testing.assert_array_equal(ran_avg(x, window, count_padding), wanted)
    # A gradient that is no number reaches its own elements alone.
    dy = np.where(rng.random(y.shape) < 0.1, np.nan, 1.0).astype(dtype)
    dx = ran_backward(dy, places, x.shape, window)
    np.testing.assert_array_equal(dx, max_pool_backward(dy, places, x.shape, window))


def test_windows_of_minus_infinity_point_into_the_image(isa: str) -> None:
    """The first tap that is no padding, for all of them are equal."""
    x = np.full((1, 4, 4, 20), -np.inf, np.float32)
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    y, places = ran_max(x, window)
    assert (y == -np.inf).all()
    np.testing.assert_array_equal(places[0, :, :, 0], [[4, 3], [1, 0]])
    dx = ran_backward(np.ones_like(y), places, x.shape, window)
    assert dx.sum() == y.size


def every_result(x: Array, window: Window) -> list[bytes]:
    y, places = ran_max(x, window)
    results = [y, places, ran_backward(y, places, x.shape, window)]
    for count_padding in (True, False):
        mean = ran_avg(x, window, count_padding)
        results += [mean, ran_avg_backward(mean, x.shape, window, count_padding)]
    return [result.tobytes() for result in results]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS[:5], ids=str)
@pytest.mark.parametrize("shape", [(1, 61, 50, 64), (5, 40, 40, 33), (3, 150, 150, 3)])
def test_bits_do_not_depend_on_threads(
    isa: str, dtype: str, threads: int, window: Window, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    found = every_result(x, window)
    gm.set_num_threads(1)
    assert found == every_result(x, window)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("count_padding", [True, False])
def test_agrees_with_pytorch(window: Window, count_padding: bool) -> None:
    torch = pytest.importorskip("torch")
    top, bottom, left, right = window.padding
    if (top, left) != (bottom, right) or 2 * top > window.kernel[0] or 2 * left > window.kernel[1]:
        pytest.skip("padding that PyTorch does not take")
    x = np.random.default_rng(1).standard_normal((2, 12, 10, 7))
    x[0, 3:5, 2:5] = np.nan
    there = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    kernel, stride, padding = window.kernel, window.stride, (top, left)
    y, places = ran_max(x, window)
    other = torch.nn.functional.max_pool2d(there, kernel, stride, padding)
    other.backward(torch.ones_like(other))
    np.testing.assert_array_equal(y, other.detach().permute(0, 2, 3, 1))
    dx = ran_backward(np.ones_like(y), places, x.shape, window)
    np.testing.assert_array_equal(dx, there.grad.permute(0, 2, 3, 1))
    other = torch.nn.functional.avg_pool2d(there, kernel, stride, padding, False, count_padding)
    np.testing.assert_allclose(
        ran_avg(x, window, count_padding), other.detach().permute(0, 2, 3, 1), rtol=1e-14, atol=1e-15
    )


# -- in a graph ---------------------------------------------------------------------------------------------


def pool(graph: Any, kind: str, x: int, window: Window, count_padding: bool = True) -> int:
    if kind == "max":
        return int(graph.max_pool2d(x, *window.spelled, "pool"))
    return int(graph.avg_pool2d(x, *window.spelled, count_padding, "pool"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("window", WINDOWS[:5], ids=str)
def test_in_a_graph(isa: str, threads: int, dtype: str, kind: str, window: Window) -> None:
    """Predictor, trace and tape, of fewer samples than their capacity too."""
    x = np.random.default_rng(0).standard_normal((5, 12, 10, 17)).astype(dtype)
    graph = _core.Graph(dtype)
    output = pool(graph, kind, graph.input([12, 10, 17]), window, False)
    wanted = ran_max(x, window)[0] if kind == "max" else ran_avg(x, window, False)
    assert graph.dims(output) == wanted.shape[1:]
    out = np.empty_like(wanted)
    predictor = _core.Predictor(graph, output, 2)
    predictor.run(x, out)
    np.testing.assert_array_equal(out, wanted)
    assert "places" not in predictor.describe()  # nobody reads them
    np.testing.assert_array_equal(_core.trace(graph, [output], x)[0], wanted)
    tape = _core.Tape(graph, output, 8)
    assert ("places" in tape.describe()) == (kind == "max")
    out[...] = 0
    tape.forward(x, out, 0, 0)
    np.testing.assert_array_equal(out, wanted)
    dy = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    dx = np.empty_like(x)
    tape.backward(dy, dx)
    if kind == "max":
        np.testing.assert_array_equal(dx, ran_backward(dy, ran_max(x, window)[1], x.shape, window))
    else:
        np.testing.assert_array_equal(dx, ran_avg_backward(dy, x.shape, window, False))


def test_places_of_pools_behind_each_other_have_memory_of_their_own() -> None:
    """Of three poolings with an activation and a sum between; each one's places live until its gradient."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 16, 16, 9))
    first, second = Window((2, 2), (2, 2), (0, 0, 0, 0)), Window((3, 3), (1, 1), (1, 1, 1, 1))
    graph = _core.Graph("float64")
    a = graph.max_pool2d(graph.input([16, 16, 9]), *first.spelled, "a")
    b = graph.max_pool2d(graph.activation(a, "tanh", 1.0, "t"), *second.spelled, "b")
    c = graph.max_pool2d(graph.add(a, b, "s"), *first.spelled, "c")
    tape = _core.Tape(graph, c, 4)
    out = np.empty((4, 4, 4, 9))
    tape.forward(x, out, 0, 0)
    ya, pa = ran_max(x, first)
    h = np.empty_like(ya)
    _core.activation("tanh", 1.0, ya, h)
    yb, pb = ran_max(h, second)
    yc, pc = ran_max(ya + yb, first)
    np.testing.assert_array_equal(out, yc)
    dy = rng.standard_normal(out.shape)
    dx = np.empty_like(x)
    tape.backward(dy, dx)
    ds = ran_backward(dy, pc, ya.shape, first)
    dh = ran_backward(ds, pb, ya.shape, second)
    dt = np.empty_like(dh)
    _core.activation_grad("tanh", 1.0, dh, h, dt)
    np.testing.assert_allclose(dx, ran_backward(ds + dt, pa, x.shape, first), rtol=1e-15)


# -- errors -------------------------------------------------------------------------------------------------

GOOD = Window((2, 2), (2, 2), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (Window((0, 2), (2, 2), (0, 0, 0, 0)), "kernel height is 0"),
        (Window((2, -1), (2, 2), (0, 0, 0, 0)), "kernel width is -1"),
        (Window((2, 2), (2, 0), (0, 0, 0, 0)), "stride width is 0"),
        (Window((2, 2), (2, 2), (-1, 0, 0, 0)), "padding height is -1"),
        (Window((2, 2), (2, 2), (0, 2, 0, 0)), "padding height is 2, it is less than the kernel's 2"),
        (Window((2, 3), (2, 2), (0, 0, 3, 0)), "padding width is 3"),
        (Window((9, 2), (2, 2), (0, 0, 0, 0)), "kernel height covers 9 pixels, the padded image has 6"),
    ],
)
def test_windows_that_cannot_be(window: Window, message: str) -> None:
    x, y = np.zeros((1, 6, 6, 2), np.float32), np.full((1, 3, 3, 2), 7, np.float32)
    places = np.full(y.shape, 7, np.uint8)
    graph = _core.Graph("float32")
    value = graph.input([6, 6, 2])
    for run in (
        lambda: _core.max_pool2d(x, y, places, *window.spelled),
        lambda: _core.max_pool2d_backward(y, places, x, *window.spelled),
        lambda: _core.avg_pool2d(x, y, *window.spelled, True),
        lambda: _core.avg_pool2d_backward(y, x, *window.spelled, True),
        lambda: graph.max_pool2d(value, *window.spelled, "p"),
        lambda: graph.avg_pool2d(value, *window.spelled, True, "p"),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    assert (y == 7).all()
    assert (places == 7).all()
    assert (x == 0).all()


def test_a_byte_numbers_the_taps() -> None:
    x = images((1, 20, 20, 3), "float32")
    most = Window((15, 17), (1, 1), (0, 0, 0, 0))
    np.testing.assert_array_equal(ran_max(x, most)[1], max_pool(x, most)[1])
    with pytest.raises(ValueError, match=r"kernel \(16, 16\) has 256 taps, it has at most 255"):
        ran_max(x, Window((16, 16), (1, 1), (0, 0, 0, 0)))
    ran_avg(x, Window((16, 16), (1, 1), (0, 0, 0, 0)), True)


def test_arrays_that_do_not_fit() -> None:
    x, y = np.zeros((1, 6, 6, 2), np.float32), np.zeros((1, 3, 3, 2), np.float32)
    places = np.zeros(y.shape, np.uint8)
    window = GOOD.spelled
    with pytest.raises(gm.ShapeError, match=r"y has shape \(1, 3, 2, 2\), not \(1, 3, 3, 2\)"):
        _core.max_pool2d(x, y[:, :, :2].copy(), None, *window)
    with pytest.raises(gm.ShapeError, match=r"x has shape \(6, 6, 2\), not \(N, H, W, C\)"):
        _core.avg_pool2d(x[0], y, *window, True)
    with pytest.raises(gm.ShapeError, match="image's width is 0"):
        _core.avg_pool2d(np.zeros((1, 6, 0, 2), np.float32), y, *window, True)
    with pytest.raises(gm.ShapeError, match=r"max_pool2d: places has shape"):
        _core.max_pool2d(x, y, places[:, :2].copy(), *window)
    with pytest.raises(gm.ShapeError, match=r"max_pool2d_backward: places has shape"):
        _core.max_pool2d_backward(y, places[:, :2].copy(), x, *window)
    with pytest.raises(gm.ShapeError, match=r"dy has shape .* for dx \(1, 6, 6, 2\)"):
        _core.avg_pool2d_backward(np.zeros((2, 3, 3, 2), np.float32), x, *window, True)
    with pytest.raises(gm.DTypeError, match="y is float64, not float32"):
        _core.max_pool2d(x, y.astype(np.float64), None, *window)
    with pytest.raises(gm.DTypeError, match="places is int64, not uint8"):
        _core.max_pool2d(x, y, places.astype(np.int64), *window)
    with pytest.raises(gm.DTypeError, match="int64, not float32 or float64"):
        _core.avg_pool2d(x.astype(np.int64), y, *window, True)
    with pytest.raises(ValueError, match="x is not C-contiguous"):
        _core.avg_pool2d(x[:, ::2, ::2], np.zeros((1, 1, 1, 2), np.float32), *window, True)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="y is read-only"):
        _core.avg_pool2d(x, y, *window, True)
    graph = _core.Graph("float32")
    with pytest.raises(gm.ShapeError, match=r"a sample has shape \(6, 6\), not \(H, W, C\)"):
        graph.max_pool2d(graph.input([6, 6]), *window, "p")
    with pytest.raises(ValueError, match="the graph has no value 7"):
        graph.avg_pool2d(7, *window, True, "p")


def test_no_images_and_no_channels() -> None:
    for shape in [(0, 6, 6, 2), (2, 6, 6, 0)]:
        assert all(not result for result in every_result(np.zeros(shape, np.float32), WINDOWS[1]))


# -- memory -------------------------------------------------------------------------------------------------


def check_between_pages(isa: str) -> None:
    """Every array flush with a page that may not be touched, at either end."""
    _core.force_isa(isa)
    memories = [Guarded(1 << 16) for _ in range(4)]
    for dtype, channels, window, end in itertools.product(DTYPES, CHANNELS, WINDOWS, (False, True)):

        def placed(values: Array, memory: int, end: bool = end) -> Array:
            return memories[memory].place(values.reshape(1, -1), 0, end).reshape(values.shape)

        x = placed(images((1, 7, 9, channels), dtype), 0)
        wanted, numbers = max_pool(x, window)
        y, places = placed(np.zeros_like(wanted), 1), placed(np.zeros_like(numbers), 2)
        dx = placed(np.zeros_like(x), 3)
        _core.max_pool2d(x, y, places, *window.spelled)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(places, numbers)
        _core.max_pool2d_backward(y, places, dx, *window.spelled)
        np.testing.assert_array_equal(dx, max_pool_backward(wanted, numbers, x.shape, window))
        _core.avg_pool2d(x, y, *window.spelled, False)
        np.testing.assert_array_equal(y, avg_pool(x, window, False).astype(dtype))
        _core.avg_pool2d_backward(y, dx, *window.spelled, False)


def test_no_byte_beyond_the_arrays(isa: str) -> None:
    """In a process of its own, which a fault would end."""
    done = run_python(f"import test_pool_kernels; test_pool_kernels.check_between_pages({isa!r})")
    assert done.returncode == 0, done.stderr
