"""What convolution, pooling and resizing compute, as they are defined, with loops over places, in float64.

Nothing here is fast and nothing here imports gemmule. Images are (N, H, W, C), filters (n_out, k_h, k_w,
n_in / groups). The formulas are those of docs/math.md.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]


class Window(NamedTuple):
    """A window over an image (height, width). padding: top, bottom, left, right."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    def places(self, image: Pair) -> Pair:
        """How many there are, down and across: floor((padded - span) / stride) + 1."""
        top, bottom, left, right = self.padding
        padded = image[0] + top + bottom, image[1] + left + right
        span = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        return (padded[0] - span[0]) // self.stride[0] + 1, (padded[1] - span[1]) // self.stride[1] + 1

    def taps(self, image: Pair) -> Iterator[tuple[Pair, Pair, Pair]]:
        """(place, tap, pixel) wherever a tap of the window meets a pixel and not the padding, place by place
        and tap by tap."""
        for place in np.ndindex(self.places(image)):
            for tap in np.ndindex(self.kernel):
                row = place[0] * self.stride[0] + tap[0] * self.dilation[0] - self.padding[0]
                column = place[1] * self.stride[1] + tap[1] * self.dilation[1] - self.padding[2]
                if 0 <= row < image[0] and 0 <= column < image[1]:
                    yield place, tap, (row, column)


def same(image: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[int, int, int, int]:
    """The padding that gives ceil(size / stride) places, the odd pixel at the end."""
    sides = []
    for size, k, s, d in zip(image, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


# -- convolution ---------------------------------------------------------------------------------------------


# In the subscripts of einsum n is the sample, g the group, c a channel in it and o a filter in it.


def _by_group(array: Array, groups: int) -> Array:
    """(..., groups, channels of each) in float64."""
    return array.astype(np.float64).reshape(*array.shape[:-1], groups, -1)


def _filters(weight: Array, groups: int) -> Array:
    """(k_h, k_w, groups, filters of each, channels of each) in float64."""
    parted = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    return np.moveaxis(parted, (2, 3), (0, 1))


def conv2d(x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> Array:
    """z[n, place, o] = b[o] + the sum over taps and channels of x[n, pixel, c] W[o, tap, c]."""
    x, n_out, weight = _by_group(x, groups), len(weight), _filters(weight, groups)
    z = np.zeros((len(x), *window.places(x.shape[1:3]), groups, n_out // groups))
    for place, tap, pixel in window.taps(x.shape[1:3]):
        z[:, *place] += np.einsum("ngc,goc->ngo", x[:, *pixel], weight[tap])
    z = z.reshape(*z.shape[:3], n_out)
    return z if bias is None else z + bias


def conv2d_input_grad(dz: Array, weight: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
    """dx, of x's shape: every product of the forward pass again, from its result to its x."""
    dz, weight = _by_group(dz, groups), _filters(weight, groups)
    dx = np.zeros((*shape[:3], groups, shape[3] // groups))
    for place, tap, pixel in window.taps(shape[1:3]):
        dx[:, *pixel] += np.einsum("ngo,goc->ngc", dz[:, *place], weight[tap])
    return dx.reshape(shape)


def conv2d_weight_grad(dz: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
    """dW, of W's shape: the same to its W."""
    dz, x = _by_group(dz, groups), _by_group(x, groups)
    dweight = np.zeros((groups, shape[0] // groups, *shape[1:]))
    for place, tap, pixel in window.taps(x.shape[1:3]):
        dweight[:, :, *tap] += np.einsum("ngo,ngc->goc", dz[:, *place], x[:, *pixel])
    return dweight.reshape(shape)


# -- pooling -------------------------------------------------------------------------------------------------


def max_pool2d(x: Array, window: Window) -> tuple[Array, Array]:
    """y and, in x's shape but for the places, the (row, column) each y came from: of equal pixels the first.
    NaN is larger than any number."""
    shape = (len(x), *window.places(x.shape[1:3]), x.shape[3])
    y, source = np.full(shape, -np.inf), np.full((*shape, 2), -1)
    for place, _, pixel in window.taps(x.shape[1:3]):
        new, best = x[:, *pixel], y[:, *place]
        better = (new > best) | np.isnan(new) | (source[:, *place, :, 0] < 0)
        y[:, *place] = np.where(better, new, best)
        source[:, *place][better] = pixel
    return y, source


def max_pool2d_backward(dy: Array, x: Array, window: Window) -> Array:
    """dx: each dy goes to the pixel that its y came from."""
    dx = np.zeros(x.shape)
    _, source = max_pool2d(x, window)
    for n, p, q, c in np.ndindex(dy.shape):
        row, column = source[n, p, q, c]
        dx[n, row, column, c] += dy[n, p, q, c]
    return dx


def _counts(window: Window, image: Pair, count_padding: bool) -> Array:
    """By what each place divides."""
    counts = np.zeros(window.places(image))
    for place, _, _ in window.taps(image):
        counts[place] += 1
    return np.full_like(counts, window.kernel[0] * window.kernel[1]) if count_padding else counts


def avg_pool2d(x: Array, window: Window, count_padding: bool) -> Array:
    """The mean over the pixels of each place, or over all its taps where the padding counts."""
    image = x.shape[1:3]
    y = np.zeros((len(x), *window.places(image), x.shape[3]))
    for place, _, pixel in window.taps(image):
        y[:, *place] += x[:, *pixel]
    return np.asarray(y / _counts(window, image, count_padding)[:, :, None])


def avg_pool2d_backward(dy: Array, shape: tuple[int, ...], window: Window, count_padding: bool) -> Array:
    """dx, of x's shape: each pixel's share of the places it is in."""
    share = dy / _counts(window, shape[1:3], count_padding)[:, :, None]
    dx = np.zeros(shape)
    for place, _, pixel in window.taps(shape[1:3]):
        dx[:, *pixel] += share[:, *place]
    return dx


# -- other sizes ---------------------------------------------------------------------------------------------


def axis_matrix(kind: str, size: int, outputs: int, scale: float | None = None) -> Array:
    """(outputs, size): what each result takes of each pixel. kind: nearest, linear, corners or mean. scale:
    results per pixel, where that is not outputs / size."""
    matrix = np.zeros((outputs, size))
    factor = Fraction(outputs, size) if scale is None else Fraction(scale).limit_denominator(1000)
    for p in range(outputs):
        match kind:
            case "mean":
                first, last = p * size // outputs, -(-(p + 1) * size // outputs)
                matrix[p, first:last] = 1 / (last - first)
            case "nearest":
                matrix[p, min(math.floor(p / factor), size - 1)] = 1
            case "linear" | "corners":
                place = (p + Fraction(1, 2)) / factor - Fraction(1, 2)
                if kind == "corners":
                    place = Fraction(p * (size - 1), outputs - 1) if outputs > 1 else Fraction(0)
                place = min(max(place, Fraction(0)), Fraction(size - 1))
                pixel = math.floor(place)
                matrix[p, pixel] = 1 - (place - pixel)
                if place > pixel:
                    matrix[p, pixel + 1] = place - pixel
    return matrix


def resize(x: Array, down: Array, across: Array) -> Array:
    """y[p, q] = the sum of down[p, i] across[q, j] x[i, j], for every channel."""
    return np.einsum("pi,qj,nijc->npqc", down, across, x.astype(np.float64))


def resize_backward(dy: Array, down: Array, across: Array) -> Array:
    """dx[i, j] = the sum of down[p, i] across[q, j] dy[p, q]."""
    return np.einsum("pi,qj,npqc->nijc", down, across, dy.astype(np.float64))
