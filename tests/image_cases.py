"""Images, filters and windows that the tests of convolution and pooling share."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import image_reference as reference
import numpy as np
from image_reference import Array, Pair, Window

# About the vectors (4 to 16 lanes) and tiles of few vectors, one under and one over.
CHANNELS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32, 33, 65]
PADDINGS = ["none", "number", "pair", "sides", "same", "valid"]


class Convolution(NamedTuple):
    """Sizes of one convolution, and how its padding is given."""

    shape: tuple[int, int, int, int]
    filters: tuple[int, int, int, int]
    stride: Pair
    dilation: Pair
    padding: Any
    groups: int
    seed: int

    @property
    def window(self) -> Window:
        kernel = self.filters[1], self.filters[2]
        plain = Window(kernel, self.stride, (0, 0, 0, 0), self.dilation)
        return plain._replace(padding=sides(self.padding, self.shape[1:3], plain))

    @property
    def options(self) -> dict[str, Any]:
        """What `gm.ops.conv2d` is told of it."""
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups
        }  # fmt: skip

    def draw(self, make: Any = None) -> tuple[Array, Array, Array, Array]:
        """x, weight, bias and dz; normal deviates in float64 unless `make` makes them, from (rng, shape)."""
        rng = np.random.default_rng(self.seed)
        places = self.window.places(self.shape[1:3])
        shapes = self.shape, self.filters, self.filters[:1], (self.shape[0], *places, self.filters[0])
        x, weight, bias, dz = (make(rng, s) if make else rng.standard_normal(s) for s in shapes)
        return x, weight, bias, dz


def sides(padding: Any, image: Pair, window: Window) -> tuple[int, int, int, int]:
    """Top, bottom, left, right from any form that gemmule takes."""
    match padding:
        case "same":
            return reference.same(image, window.kernel, window.stride, window.dilation)
        case "valid":
            return 0, 0, 0, 0
        case int():
            return padding, padding, padding, padding
        case height, width:
            return height, height, width, width
        case top, bottom, left, right:
            return top, bottom, left, right
    raise AssertionError(padding)


def _padding(rng: np.random.Generator, kernel: Pair, half: bool) -> Any:
    """In one of the forms; `half`: at most half the kernel, as pooling has it."""
    most = [k // 2 if half else k for k in kernel]
    height, width = (int(rng.integers(m + 1)) for m in most)
    match rng.choice(PADDINGS):
        case "number":
            return min(height, width)
        case "pair":
            return height, width
        case "sides":
            return height, int(rng.integers(most[0] + 1)), width, int(rng.integers(most[1] + 1))
        case "same" | "valid" as name:
            return str(name)
    return 0


def _pair(rng: np.random.Generator, most: int) -> Pair:
    return int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1))


@cache
def convolutions(count: int = 60) -> list[Convolution]:
    """Of any shape, every third depthwise or in groups."""
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(count):
        groups = 1 if seed % 3 else int(rng.choice([2, 3, 4, 16]))
        ins, outs = (int(rng.choice(CHANNELS[: 5 if groups > 1 else None])) for _ in range(2))
        if seed % 6 == 0:
            ins, outs = 1, int(rng.integers(1, 3))
        kernel, stride, dilation = _pair(rng, 5), _pair(rng, 3), _pair(rng, 2)
        if seed % 5 == 0:
            kernel, dilation = (3, 3), (1, 1)
        if seed % 10 == 1:
            kernel = (1, 1)
        padding = _padding(rng, kernel, half=False)
        # As large as the kernel, without its padding, at the least; often no multiple of the stride.
        height, width = (
            d * (k - 1) + 1 + int(rng.integers(8)) for d, k in zip(dilation, kernel, strict=True)
        )
        shape = int(rng.integers(1, 4)), height, width, groups * ins
        filters = groups * outs, *kernel, ins
        cases.append(Convolution(shape, filters, stride, dilation, padding, groups, seed))
    # Smaller than the kernel, but for their padding; one pixel; a stride beyond the kernel and the image.
    cases.append(Convolution((2, 2, 1, 3), (5, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1, 100))
    cases.append(Convolution((3, 1, 1, 2), (4, 1, 1, 2), (1, 1), (1, 1), 0, 1, 101))
    cases.append(Convolution((1, 1, 1, 2), (4, 3, 3, 2), (1, 1), (1, 1), "same", 1, 102))
    cases.append(Convolution((2, 9, 8, 3), (2, 2, 2, 3), (5, 11), (1, 1), 0, 1, 103))
    return cases


# The shapes of networks in use, made small: their kernels, strides and channels are what paths go by.
USUAL = [
    Convolution((2, 28, 28, 1), (32, 3, 3, 1), (1, 1), (1, 1), 0, 1, 0),
    Convolution((2, 26, 26, 32), (64, 3, 3, 32), (1, 1), (1, 1), 0, 1, 1),
    Convolution((1, 16, 16, 128), (128, 3, 3, 128), (1, 1), (1, 1), 1, 1, 2),
    Convolution((2, 8, 8, 256), (128, 3, 3, 256), (1, 1), (1, 1), "same", 1, 3),
    Convolution((2, 16, 16, 64), (128, 1, 1, 64), (1, 1), (1, 1), 0, 1, 4),
    Convolution((2, 16, 16, 64), (128, 1, 1, 64), (2, 2), (1, 1), 0, 1, 5),
    Convolution((1, 40, 40, 3), (64, 7, 7, 3), (2, 2), (1, 1), 3, 1, 6),
    Convolution((2, 14, 14, 128), (128, 3, 3, 1), (1, 1), (1, 1), 1, 128, 7),
    Convolution((2, 16, 16, 64), (128, 3, 3, 64), (2, 2), (1, 1), 1, 1, 8),
    Convolution((3, 7, 7, 65), (33, 3, 3, 65), (1, 1), (1, 1), 1, 1, 9),
    Convolution((2, 28, 28, 1), (6, 5, 5, 1), (1, 1), (1, 1), 2, 1, 10),
    Convolution((2, 1, 50, 16), (24, 1, 5, 16), (1, 1), (1, 1), "same", 1, 11),
    # Small images beneath large windows: many together, their number no multiple; strides; outputs that meet
    # no tap, or none in common; more kinds of outputs in a row than are told apart.
    Convolution((35, 4, 5, 24), (72, 5, 5, 24), (1, 1), (1, 1), 2, 1, 12),
    Convolution((17, 11, 10, 24), (40, 5, 5, 24), (2, 3), (1, 1), 2, 1, 13),
    Convolution((2, 1, 9, 24), (33, 1, 3, 24), (1, 1), (1, 1), (0, 4), 1, 14),
    Convolution((2, 2, 9, 24), (33, 2, 3, 24), (1, 1), (1, 1), (2, 1), 1, 15),
    Convolution((2, 3, 5, 16), (16, 3, 3, 1), (1, 1), (1, 1), (4, 5), 16, 17),
    # Depthwise windows of three: one row and two, few outputs in a row and many, a rest of channels.
    Convolution((2, 5, 23, 37), (37, 3, 3, 1), (1, 1), (1, 1), 1, 37, 18),
    Convolution((3, 4, 3, 33), (33, 3, 3, 1), (1, 1), (1, 1), (0, 1, 1, 0), 33, 19),
    Convolution((2, 3, 8, 20), (20, 3, 3, 1), (1, 1), (1, 1), 0, 20, 20),
    Convolution((2, 1, 9, 5), (5, 3, 3, 1), (1, 1), (1, 1), "same", 5, 21),
    Convolution((1, 6, 1, 18), (18, 3, 3, 1), (1, 1), (1, 1), 1, 18, 22),
    Convolution((2, 6, 21, 8), (9, 3, 19, 8), (1, 1), (1, 1), (1, 9), 1, 16),
]


class Pooling(NamedTuple):
    """Sizes of one pooling."""

    shape: tuple[int, int, int, int]
    kernel: Pair
    stride: Pair | None
    padding: Any
    seed: int

    @property
    def window(self) -> Window:
        plain = Window(self.kernel, self.stride or self.kernel)
        return plain._replace(padding=sides(self.padding, self.shape[1:3], plain))

    @property
    def options(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}

    def draw(self) -> tuple[Array, Array]:
        """x and dy, normal deviates in float64."""
        rng = np.random.default_rng(self.seed)
        places = self.window.places(self.shape[1:3])
        return rng.standard_normal(self.shape), rng.standard_normal((self.shape[0], *places, self.shape[3]))


@cache
def poolings(count: int = 40) -> list[Pooling]:
    """Of any shape; every fourth by 2, as most are."""
    rng = np.random.default_rng(1)
    cases = []
    for seed in range(count):
        kernel: Pair = _pair(rng, 4) if seed % 4 else (2, 2)
        stride = _pair(rng, 4) if seed % 3 == 0 else None
        padding = _padding(rng, kernel, half=True)
        height, width = (k + int(rng.integers(8)) for k in kernel)
        shape = int(rng.integers(1, 4)), height, width, int(rng.choice(CHANNELS))
        cases.append(Pooling(shape, kernel, stride, padding, seed))
    cases.append(Pooling((2, 24, 24, 64), (2, 2), None, 0, 100))
    cases.append(Pooling((2, 17, 16, 64), (3, 3), (2, 2), 1, 101))
    cases.append(Pooling((3, 7, 7, 33), (7, 7), None, 0, 102))
    cases.append(Pooling((1, 1, 1, 1), (1, 1), None, 0, 103))
    return cases


def channels_first(array: Array) -> Array:
    """(N, H, W, C) -> (N, C, H, W), contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, 3, 1))


def layouts_in_memory(array: Array) -> Iterator[Array]:
    """The same values, one after another in memory, and not."""
    yield array
    spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)[..., ::2]
    backwards = np.empty_like(array)[..., ::-1]
    upside_down = np.empty_like(array)[:, ::-1]
    fortran = np.empty_like(array, order="F")
    for view in (spread, backwards, upside_down, fortran):
        view[...] = array
        yield view
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
