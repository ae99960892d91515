"""Windows that slide over images: the arguments of convolution and pooling, and the sizes they give.

Along an axis of H pixels, padded by p before and q after it, a kernel of k taps, d apart, spans
d (k - 1) + 1 pixels and moves by s: it has H' = floor((H + p + q - d (k - 1) - 1) / s) + 1 places. A
transposed convolution goes back: of H places it makes H' = (H - 1) s - p - q + d (k - 1) + 1 pixels and up to
s - 1 more, which the window does not reach either.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arrays import Shape
from .errors import ShapeError

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]  # top, bottom, left, right
PairLike = int | Sequence[int]
PaddingLike = int | Sequence[int] | str

MAX_TAPS = 255  # of a maximum, which is remembered by a byte
_MOST = 2**31  # sums and products of two sizes below it stay in 64 bits


class Window(NamedTuple):
    """A checked window, of `op` in messages. padding: the sides, or "same"."""

    op: str
    kernel: Pair
    stride: Pair
    padding: Sides | str
    dilation: Pair

    def sides(self, height: int, width: int) -> Sides:
        """What is padded of an image. "same" gives ceil(size / stride) places, the odd pixel at the end."""
        if not isinstance(self.padding, str):
            return self.padding
        (top, bottom), (left, right) = (self._same(axis, n) for axis, n in enumerate((height, width)))
        return top, bottom, left, right

    def _same(self, axis: int, size: int) -> Pair:
        stride = self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + self.span(axis) - size, 0)
        return total // 2, total - total // 2

    def span(self, axis: int) -> int:
        """Pixels from the first tap to the last."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def places(self, height: int, width: int) -> Pair:
        """(H', W'); ShapeError where the padded image is smaller than the kernel."""
        top, bottom, left, right = self.sides(height, width)
        padded = height + top + bottom, width + left + right
        span = self.span(0), self.span(1)
        if span[0] > padded[0] or span[1] > padded[1]:
            spread = "" if self.dilation == (1, 1) else f" with dilation {self.dilation}"
            raise ShapeError(
                f"{self.op}: kernel {self.kernel}{spread} spans {span} pixels, the padded image {padded}"
            )
        height, width = ((padded[i] - span[i]) // self.stride[i] + 1 for i in (0, 1))
        return height, width

    def output_shape(self, shape: Shape, channels: int) -> Shape:
        """(..., H', W', channels) from (..., H, W, C); ShapeError where it overflows, too."""
        result = *shape[:-3], *self.places(shape[-3], shape[-2]), channels
        if math.prod(result) * 8 >= 2**63:
            raise ShapeError(f"{self.op}: the output's shape {result} overflows 64 bits")
        return result


class Transposed(NamedTuple):
    """A checked window that makes what comes in of what goes out. extra: pixels more below and right."""

    window: Window
    extra: Pair

    def output_shape(self, shape: Shape, channels: int) -> Shape:
        """(..., H', W', channels) from (..., H, W, C); ShapeError where there are no pixels, or too many."""
        size = shape[-3], shape[-2]
        where = self.window
        if where.padding == "same":
            pixels = [n * stride for n, stride in zip(size, where.stride, strict=True)]
        else:
            top, bottom, left, right = where.sides(*size)
            pixels = [
                (size[axis] - 1) * where.stride[axis] - cut + where.span(axis) + self.extra[axis]
                for axis, cut in enumerate((top + bottom, left + right))
            ]
        if min(pixels) < 1:
            raise ShapeError(f"{where.op}: padding {where.padding} leaves none of {size} places' pixels")
        result = *shape[:-3], *pixels, channels
        if max(pixels) >= _MOST or math.prod(result) * 8 >= 2**63:
            raise ShapeError(f"{where.op}: the output's shape {result} overflows 64 bits")
        return result


def transposed(
    op: str, kernel: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any = 1
) -> Transposed:
    """The window of a transposed convolution; TypeError and ValueError name the argument at fault."""
    made = window(op, kernel, stride, padding, dilation)
    extra = ends(output_padding, f"{op}: output_padding")
    if extra[0] >= made.stride[0] or extra[1] >= made.stride[1]:
        raise ValueError(
            f"{op}: output_padding is {output_padding!r}; it must be less than the stride {made.stride}"
        )
    if made.padding == "same" and extra != (0, 0):
        raise ValueError(f"{op}: output_padding is {output_padding!r}; padding 'same' leaves no choice")
    return Transposed(made, extra)


def window(op: str, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Window:
    """The window that these arguments describe; TypeError and ValueError name the one at fault."""
    return Window(
        op,
        pair(kernel, f"{op}: kernel"),
        pair(stride, f"{op}: stride"),
        _checked_padding(padding, f"{op}: padding"),
        pair(dilation, f"{op}: dilation"),
    )


def pooling(op: str, kernel: Any, stride: Any, padding: Any, most: int | None = None) -> Window:
    """The same of a pooling window, which moves by its own size where no stride is given. ValueError for a
    kernel of more than `most` taps, and for a padding of more than half the kernel: no window may lie in the
    padding alone."""
    made = window(op, kernel, kernel if stride is None else stride, padding)
    taps = made.kernel[0] * made.kernel[1]
    if most is not None and taps > most:
        raise ValueError(f"{op}: kernel {made.kernel} has {taps} taps; it may have {most}")
    if not isinstance(made.padding, str):
        (height, width), sides = made.kernel, made.padding
        if 2 * max(sides[:2]) > height or 2 * max(sides[2:]) > width:
            raise ValueError(f"{op}: padding {padding!r} is more than half the kernel {made.kernel}")
    return made


def pair(value: Any, what: str) -> Pair:
    """(n, n) from a number, (h, w) from a pair; integers of at least 1."""
    both = (value, value) if _is_int(value) else _integers(value, what, (2,))
    for size in both:
        if not 1 <= size < _MOST:
            raise ValueError(f"{what} is {value!r}; it must be at least 1 and below 2**31")
    height, width = map(int, both)
    return height, width


def _checked_padding(value: Any, what: str) -> Sides | str:
    """A number, (height, width), (top, bottom, left, right), "same", or "valid" for none."""
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise ValueError(f"{what} is {value!r}; known: same, valid, or numbers")
        return value if value == "same" else (0, 0, 0, 0)
    sizes = (value,) * 4 if _is_int(value) else _integers(value, what, (2, 4))
    if len(sizes) == 2:
        sizes = (sizes[0], sizes[0], sizes[1], sizes[1])
    for size in sizes:
        _check_padding(size, value, what)
    top, bottom, left, right = map(int, sizes)
    return top, bottom, left, right


def frame(value: Any, what: str) -> Sides:
    """(top, bottom, left, right) from a number, a pair or four; integers of at least 0."""
    if isinstance(value, str):
        raise TypeError(f"{what} must be an integer or 2 or 4 of them, not {value!r}")
    sides = _checked_padding(value, what)
    assert not isinstance(sides, str)
    return sides


def ends(value: Any, what: str) -> Pair:
    """(before, after) from a number or a pair, for padding along one axis; integers of at least 0."""
    before, after = (value, value) if _is_int(value) else _integers(value, what, (2,))
    for size in (before, after):
        _check_padding(size, value, what)
    return int(before), int(after)


def _check_padding(size: int, value: Any, what: str) -> None:
    if not 0 <= size < _MOST:
        raise ValueError(f"{what} is {value!r}; it must not be negative, and below 2**31")


def checked_groups(op: str, groups: Any, n_in: int | None, n_out: int) -> int:
    """The number of groups; ValueError where it does not divide both numbers of channels."""
    if not _is_int(groups):
        raise TypeError(f"{op}: groups must be an integer, not {groups!r}")
    if not 1 <= groups < _MOST:
        raise ValueError(f"{op}: groups is {groups}; it must be at least 1 and below 2**31")
    if (n_in or 0) % groups or n_out % groups:
        channels = f"{n_out} output channels" if n_in is None else f"{n_in} input and {n_out} output channels"
        raise ValueError(f"{op}: groups is {groups}, which does not divide {channels}")
    return int(groups)


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _integers(value: Any, what: str, lengths: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(sizes) not in lengths or not all(map(_is_int, sizes)):
        counts = " or ".join(map(str, lengths))
        raise TypeError(f"{what} must be an integer or {counts} of them, not {value!r}")
    return sizes


def written(value: tuple[int, ...] | str) -> str:
    """As an argument, in the shortest form: one number where all are the same."""
    if isinstance(value, str):
        return repr(value)
    if len(value) == 4 and value[0] == value[1] and value[2] == value[3]:
        value = value[0], value[2]
    return str(value[0]) if len(set(value)) == 1 else str(value)
