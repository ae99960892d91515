"""Winograd's convolutions, forced, against float64 and its own bound; where they are taken, and where not."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import image_reference
import numpy as np
import pytest
import winograd_reference
from guarded import Guarded
from helpers import run_python
from image_cases import Convolution
from image_reference import Array
from matrices import DTYPES

import gemmule as gm
from gemmule import _core

PATHS = {"winograd": 2, "winograd4": 4}
CASES = [
    Convolution(shape, (filters, 3, 3, shape[3]), (1, 1), (1, 1), padding, 1, seed)
    for seed, (shape, filters, padding) in enumerate(
        [
            ((2, 8, 8, 16), 16, 1),  # whole tiles
            ((3, 7, 9, 5), 19, "same"),
            ((2, 13, 6, 70), 33, 2),
            ((1, 1, 1, 3), 4, 1),  # one pixel
            ((2, 1, 5, 1), 1, "same"),
            ((1, 3, 3, 17), 65, 0),  # one output
            ((1, 6, 4, 8), 9, (0, 1, 2, 0)),
            ((2, 5, 12, 33), 7, (2, 1)),
            ((1, 4, 4, 400), 8, 0),  # more than a block of the depth
            ((5, 10, 11, 32), 48, 1),
            ((1, 2, 2, 6), 5, 4),  # padding alone, at the border
            ((3, 23, 25, 3), 70, 1),  # more tiles than a block has, two chunks of filters
        ]
    )
]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, force_conv: Callable[[str], None]) -> str:
    force_conv(request.param)
    name: str = request.param
    return name


@pytest.fixture
def default_numerics() -> Iterator[None]:
    yield
    gm.set_numerics("default")


@cache
def drawn(case: Convolution, dtype: type) -> tuple[Array, ...]:
    return tuple(array.astype(dtype) for array in case.draw())


def computed(
    case: Convolution, x: Array, weight: Array, bias: Array | None, dz: Array
) -> tuple[Array, Array, Array]:
    """z, dx and dW."""
    options = {"padding": case.padding}
    return gm.ops.conv2d(x, weight, bias, **options), *gm.ops.conv2d_backward(dz, x, weight, **options)[:2]


@cache
def wanted(case: Convolution, dtype: type) -> tuple[Array, Array, Array]:
    return reference(case, *drawn(case, dtype))


def reference(
    case: Convolution, x: Array, weight: Array, bias: Array, dz: Array
) -> tuple[Array, Array, Array]:
    return (
        image_reference.conv2d(x, weight, bias, case.window),
        image_reference.conv2d_input_grad(dz, weight, x.shape, case.window, 1),
        image_reference.conv2d_weight_grad(dz, x, weight.shape, case.window, 1),
    )


def backwards(case: Convolution) -> tuple[int, int, int, int]:
    """The padding of dz that makes dx."""
    top, _, left, _ = case.window.padding
    height, width = case.shape[1:3]
    rows, cols = case.window.places((height, width))
    return 2 - top, height - rows + top, 2 - left, width - cols + left


@cache
def sizes(case: Convolution, dtype: type, m: int) -> tuple[Array, Array, Array]:
    """S of z, dx and dW: the algorithm on sizes."""
    x, weight, bias, dz = drawn(case, dtype)
    top, bottom, left, right = backwards(case)
    crop = [max(-side, 0) for side in (top, bottom, left, right)]
    inner = dz[:, crop[0] : dz.shape[1] - crop[1], crop[2] : dz.shape[2] - crop[3]]
    padding = max(top, 0), max(bottom, 0), max(left, 0), max(right, 0)
    return (
        winograd_reference.conv2d(m, x, weight, case.window.padding, sizes=True) + abs(bias),
        winograd_reference.conv2d(m, inner, winograd_reference.turned(weight), padding, sizes=True),
        winograd_reference.conv2d_weight_grad(m, x, dz, case.window.padding, sizes=True),
    )


def tiles_of(case: Convolution, m: int) -> int:
    rows, cols = case.window.places(case.shape[1:3])
    return case.shape[0] * -(-rows // m) * -(-cols // m)


# -- correctness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", PATHS.values())
def test_the_algorithm(m: int) -> None:
    """The matrices of the bound are those of a convolution."""
    for case in CASES:
        x, weight, bias, dz = drawn(case, np.float64)
        z, _, dweight = wanted(case, np.float64)
        got = winograd_reference.conv2d(m, x, weight, case.window.padding) + bias
        np.testing.assert_allclose(got, z, rtol=0, atol=1e-11)
        got = winograd_reference.conv2d_weight_grad(m, x, dz, case.window.padding)
        np.testing.assert_allclose(got, dweight, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(isa: str, dtype: type, path: str) -> None:
    """|error| <= (terms + 32) u S, u = eps / 2: a sum has `terms` products, and what it is made of is rounded
    at most 4 times an axis in x and in W (coefficients, products, sums), 5 in the output, and with the bias.
    A sum of dW has a product of every tile and is made in blocks and parts, at most `tiles` + 2 additions one
    behind the other; 4 roundings an axis in x, 3 in dz, 5 in dW. float64 results have a reference that errs
    too, by less."""
    for case in CASES:
        results = zip(
            computed(case, *drawn(case, dtype)),
            wanted(case, dtype),
            sizes(case, dtype, PATHS[path]),
            (case.shape[3], case.filters[0], tiles_of(case, PATHS[path])),
            strict=True,
        )
        for got, want, size, terms in results:
            assert got.dtype == dtype and got.shape == want.shape
            bound = (terms + 32) * np.finfo(dtype).eps / 2 * size
            assert (abs(got - want) <= bound).all(), f"{path} of {case}"


def test_errors_beside_those_of_plain_sums(isa: str, path: str, force_conv: Callable[[str], None]) -> None:
    """Root mean squares over 18,432 outputs of 64 normal channels, and over dW. Tiles of 4 x 4 have 1.9
    times the error of plain sums, of dW 2.5 times, those of 2 x 2 about as much."""
    case = Convolution((2, 12, 12, 64), (64, 3, 3, 64), (1, 1), (1, 1), 1, 1, 50)
    arrays = drawn(case, np.float32)
    want = wanted(case, np.float32)

    def errors() -> list[float]:
        pairs = zip(computed(case, *arrays), want, strict=True)
        return [float(np.sqrt(np.mean((got - exact) ** 2))) for got, exact in pairs]

    here = errors()
    force_conv("direct")
    for got, plain in zip(here, errors(), strict=True):
        assert got < (2 if path == "winograd" else 4) * plain


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers(isa: str, dtype: type, force_conv: Callable[[str], None]) -> None:
    """Tiles of 2 x 2 have halves and quarters for coefficients. Within +-4, 400 channels: sums of sizes under
    400 * 16 * 9 / 4 * 16 * 4 < 2^22 quarters."""
    force_conv("winograd")
    for case in CASES:
        x, weight, bias, dz = case.draw(lambda rng, shape: rng.integers(-4, 5, shape).astype(np.float64))
        got = computed(case, *(array.astype(dtype) for array in (x, weight, bias, dz)))
        for array, want in zip(got, reference(case, x, weight, bias, dz), strict=True):
            np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "gelu"])
def test_networks(isa: str, path: str, activation: str, force_conv: Callable[[str], None]) -> None:
    """Epilogues and act'(saved), forward and backward, beside the direct path. In float64 errors stay near
    1e-14 of numbers of size one, some hundred terms each."""
    gradients = []
    x = np.random.default_rng(0).standard_normal((3, 9, 10, 6))
    for name in (path, "direct"):
        force_conv(name)
        layers = [gm.Conv2d(6, 20, 3, activation, padding=1), gm.Conv2d(20, 9, 3, activation), gm.Flatten()]
        network = gm.Network(layers, rng=1, input_shape=x.shape[1:], dtype="float64")
        z = network.forward(x, training=True)
        dx = network.backward(np.cos(np.arange(z.size)).reshape(z.shape))
        gradients.append([z, dx, *(p.grad.copy() for _, p in network.named_parameters())])
    for got, want in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)


def test_gradients_add_up(isa: str, path: str) -> None:
    """A second backward pass adds to the first's gradients: whole numbers, in float64 to the last bits."""
    rng = np.random.default_rng(0)
    x, dz = rng.integers(-4, 5, (3, 9, 10, 6)) * 1.0, rng.integers(-4, 5, (3, 7, 8, 20)) * 1.0
    network = gm.Network([gm.Conv2d(6, 20, 3)], rng=0, input_shape=x.shape[1:], dtype="float64")
    grads = []
    for _ in range(2):
        network.forward(x, training=True)
        network.backward(dz)
        grads.append(next(network.parameters()).grad.copy())
    np.testing.assert_allclose(grads[1], 2 * grads[0], rtol=0, atol=1e-11)


def test_nan_and_infinity(isa: str, path: str) -> None:
    """They reach every output that sees them, and no tile that does not: there an infinity may be NaN, and so
    may the tile's other outputs."""
    m = PATHS[path]
    weight = np.ones((5, 3, 3, 9), np.float32)
    for value in (np.nan, np.inf, -np.inf):
        x = np.ones((2, 13, 13, 9), np.float32)
        x[1, 6, 7, 8] = value
        finite = np.isfinite(gm.ops.conv2d(x, weight, padding=1))
        assert not finite[1, 5:8, 6:9].any()
        reached = np.zeros(finite.shape, bool)
        reached[1, 5 // m * m : (7 // m + 1) * m, 6 // m * m : (8 // m + 1) * m] = True
        assert finite[~reached].all()


# -- threads and memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(isa: str, dtype: type, path: str) -> None:
    for case in CASES:
        results = set()
        try:
            for count in (1, 2, 3, 7):
                gm.set_num_threads(count)
                results.add(tuple(array.tobytes() for array in computed(case, *drawn(case, dtype))))
        finally:
            gm.set_num_threads(None)
        assert len(results) == 1


def test_nothing_outside_the_arrays_is_touched(isa: str, path: str) -> None:
    """Operands flush with forbidden pages, before and behind."""
    memories = [Guarded(1 << 19) for _ in range(5)]
    for case in CASES:
        given = drawn(case, np.float32)
        want, _, want_grad = computed(case, *given)
        for at_end in (False, True):
            x, weight, bias, dz, z = (
                memory.place(array.reshape(1, -1), 0, at_end).reshape(array.shape)
                for memory, array in zip(memories, (*given, np.full_like(want, np.nan)), strict=True)
            )
            where = [1, 1], list(case.window.padding), [1, 1], 1
            _core.conv2d(x, weight, bias, z, *where, "identity", 1.0)
            np.testing.assert_array_equal(z, want)
            weight[...] = np.nan
            _core.conv2d_weight_grad(x, dz, weight, *where)
            np.testing.assert_array_equal(weight, want_grad)


# -- where it is taken ---------------------------------------------------------------------------------------


def test_strict_numerics_are_plain_sums(
    path: str, force_conv: Callable[[str], None], default_numerics: None
) -> None:
    case = CASES[9]
    arrays = drawn(case, np.float32)
    taken = computed(case, *arrays)
    gm.set_numerics("strict")
    strict = computed(case, *arrays)
    force_conv("direct")
    gm.set_numerics("default")
    for got, want, other in zip(strict, computed(case, *arrays), taken, strict=True):
        assert got.tobytes() == want.tobytes() != other.tobytes()


def test_strict_networks(path: str, force_conv: Callable[[str], None], default_numerics: None) -> None:
    x = np.random.default_rng(0).standard_normal((4, 12, 12, 16)).astype(np.float32)
    network = gm.Network([gm.Conv2d(16, 32, 3)], rng=0, input_shape=x.shape[1:])
    taken = network.predict(x)
    gm.set_numerics("strict")
    strict = network.predict(x)
    force_conv("direct")
    gm.set_numerics("default")
    assert network.predict(x).tobytes() == strict.tobytes() != taken.tobytes()


@pytest.mark.parametrize(
    ("shape", "filters", "want"),
    [
        ((32, 32, 32, 64), 64, "winograd4"),
        ((32, 7, 7, 512), 512, "winograd4"),
        ((1, 8, 8, 256), 256, "winograd"),
        ((2, 4, 4, 64), 64, "direct"),
        ((64, 28, 28, 1), 32, "direct"),
    ],
)
def test_chosen_by_sizes(shape: tuple[int, ...], filters: int, want: str) -> None:
    code = f"""
import numpy as np, gemmule as gm
x = np.ones({shape}, np.float32)
net = gm.Network([gm.Conv2d({shape[3]}, {filters}, 3, padding=1)], input_shape=x.shape[1:])
net.forward(x)"""
    assert f'path="{want}"' in run_python(code, GEMMULE_VERBOSE="1", GEMMULE_CONV="").stderr


@pytest.mark.parametrize(
    ("shape", "filters", "want"),
    [
        ((128, 16, 16, 32), 32, "winograd4"),
        ((32, 8, 8, 256), 256, "winograd4"),
        ((2, 4, 4, 64), 64, "direct"),
        ((64, 28, 28, 1), 32, "direct"),
    ],
)
def test_chosen_by_sizes_for_weights(shape: tuple[int, ...], filters: int, want: str) -> None:
    code = f"""
import numpy as np, gemmule as gm
x = np.ones({shape}, np.float32)
net = gm.Network([gm.Conv2d({shape[3]}, {filters}, 3, padding=1)], input_shape=x.shape[1:])
net.backward(net.forward(x, training=True))"""
    told = run_python(code, GEMMULE_VERBOSE="1", GEMMULE_CONV="").stderr
    (line,) = [line for line in told.splitlines() if "conv2d_weights" in line]
    assert f'path="{want}"' in line


def test_the_environment_forces_a_path() -> None:
    code = "from gemmule import _core\nprint(_core.forced_conv())"
    assert run_python(code, GEMMULE_CONV="winograd4").stdout.strip() == "winograd4"
    done = run_python(code, GEMMULE_CONV="fast")
    assert "ValueError: GEMMULE_CONV is 'fast'; known are direct, winograd, winograd4" in done.stderr


def test_an_unknown_path() -> None:
    with pytest.raises(ValueError, match=r"conv path is 'fft'; known are direct, winograd, winograd4"):
        _core.force_conv("fft")


def test_an_empty_batch(path: str) -> None:
    x: Any = np.empty((0, 5, 6, 4), np.float32)
    assert gm.ops.conv2d(x, np.ones((8, 3, 3, 4), np.float32)).shape == (0, 3, 4, 8)
