"""Single layers on images: a convolution or a pooling, forward or backward, its data, FLOPs and check.
Workers import this; it needs NumPy alone.

Images are (N, H, W, C) and filters (n_out, k, k, n_in / groups), as gemmule has them; who wants another
layout rearranges them outside the clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_LINE = 64  # bytes

_EPS = float(np.finfo(np.float32).eps)

# Rounding errors that do not know of each other add up like a random walk: a sum of K terms is off by
# lambda sqrt(K) u sum |terms| with a probability of at most 2 K exp(-lambda^2 / 2), here 5e-14 K with
# u = eps (Higham and Mary 2019). The certain bound, K u, would let a wrong gradient of filters pass: there
# K is 40,000 and more. Winograd's transforms, which round more than plain sums, stay below this as well.
_LAMBDA = 8.0


def on_lines(array: Array) -> Array:
    """A copy that begins with a cache line, as the tensors of other libraries do; NumPy's arrays begin 16
    bytes into one, which would slow down whoever computes on them where they lie."""
    memory = np.empty(array.nbytes + _LINE, np.uint8)
    begin = -memory.ctypes.data % _LINE
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass(frozen=True)
class Conv:
    """Z = X * W without a bias, of square images and filters; or dX and dW of it, from dZ. Where an image has
    at most three channels it is taken for the data, which need no gradient: dW alone."""

    kind: ClassVar[str] = "conv"

    batch: int
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int
    padding: int
    groups: int
    backward: bool
    threads: int
    dtype: str = "float32"

    @property
    def out_size(self) -> int:
        """Height and width of Z."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def input_grad(self) -> bool:
        """Whether dX is asked for, where backward is."""
        return self.channels > 3

    @property
    def flops(self) -> int:
        """2 N H' W' n_out k k n_in / groups for each of Z, dX and dW; taps on the padding count."""
        depth = self.kernel**2 * self.channels // self.groups
        one = 2 * self.batch * self.out_size**2 * self.filters * depth
        return one * (1 + self.input_grad) if self.backward else one

    @property
    def bytes(self) -> int:
        """Of X, W and Z, and of their gradients."""
        images = self.batch * (self.size**2 * self.channels + self.out_size**2 * self.filters)
        weights = self.filters * self.kernel**2 * self.channels // self.groups
        return 4 * (images + weights) * (2 if self.backward else 1)

    def operands(self) -> tuple[Array, Array, Array]:
        """X, W and dZ, normal deviates; W such that Z has about their size."""
        rng = np.random.default_rng(self.flops)
        n, out, n_in = self.batch, self.out_size, self.channels // self.groups
        x = on_lines(rng.standard_normal((n, self.size, self.size, self.channels), np.float32))
        weight = rng.standard_normal((self.filters, self.kernel, self.kernel, n_in), np.float32)
        dz = on_lines(rng.standard_normal((n, out, out, self.filters), np.float32))
        return x, weight / np.float32(np.sqrt(self.kernel**2 * n_in)), dz

    def check_forward(self, x: Array, weight: Array, z: Array) -> None:
        """Raise ArithmeticError unless corners, edges and middle of the first and last Z agree with float64
        within the bound of their rounding."""
        self._require("Z", z, (self.batch, self.out_size, self.out_size, self.filters))
        filters = self._grouped(weight)
        depth = self.kernel**2 * weight.shape[3]
        for n, p, q in self._places(self.out_size):
            rows, cols = (slice(self.stride * at, self.stride * at + self.kernel) for at in (p, q))
            patch = np.pad(x[n], self._pads)[rows, cols].astype(np.float64)
            patch = patch.reshape(self.kernel, self.kernel, self.groups, -1)
            exact, magnitude = _both("ijgc,goijc->go", patch, filters)
            self._compare("Z", z[n, p, q], exact, magnitude, depth)

    def check_backward(self, x: Array, weight: Array, dz: Array, dx: Array | None, dweight: Array) -> None:
        """The same of dX, where it is asked for, and of corner and middle taps of dW of the first and last
        filter."""
        self._require("dW", dweight, weight.shape)
        rows = dz.reshape(-1, self.filters)
        per_group = self.filters // self.groups
        padded = np.pad(x, ((0, 0), *self._pads))
        for i, j in {(0, 0), (self.kernel // 2, self.kernel // 2), (self.kernel - 1, 0)}:
            seen = padded[:, i : i + self._reach : self.stride, j : j + self._reach : self.stride]
            for o in (0, self.filters - 1):
                first = o // per_group * weight.shape[3]
                pixels = seen[..., first : first + weight.shape[3]].reshape(len(rows), -1)
                exact, magnitude = _both("r,rc->c", rows[:, o].astype(np.float64), pixels.astype(np.float64))
                self._compare("dW", dweight[o, i, j], exact, magnitude, len(rows))
        if self.input_grad:
            assert dx is not None
            self._require("dX", dx, x.shape)
            self._check_input_grad(self._grouped(weight), dz, dx)

    def _check_input_grad(self, filters: Array, dz: Array, dx: Array) -> None:
        depth = self.kernel**2 * filters.shape[1]
        for n, row, col in self._places(self.size):
            exact, magnitude = (np.zeros((self.groups, filters.shape[4])) for _ in range(2))
            for p, i in self._taps(row):
                for q, j in self._taps(col):
                    grads = dz[n, p, q].astype(np.float64).reshape(self.groups, -1)
                    terms = _both("go,goc->gc", grads, filters[:, :, i, j])
                    exact, magnitude = exact + terms[0], magnitude + terms[1]
            self._compare("dX", dx[n, row, col], exact, magnitude, depth)

    @property
    def _pads(self) -> tuple[tuple[int, int], ...]:
        side = (self.padding, self.padding)
        return side, side, (0, 0)

    @property
    def _reach(self) -> int:
        """From the first to behind the last pixel that one tap sees."""
        return self.stride * (self.out_size - 1) + 1

    def _grouped(self, weight: Array) -> Array:
        """(groups, n_out / groups, k, k, n_in / groups), float64."""
        return weight.astype(np.float64).reshape(self.groups, -1, *weight.shape[1:])

    def _places(self, size: int) -> Iterator[tuple[int, int, int]]:
        """(n, row, column) of what is looked at."""
        spots = sorted({0, size // 2, size - 1})
        yield from ((n, p, q) for n in sorted({0, self.batch - 1}) for p in spots for q in spots)

    def _taps(self, at: int) -> list[tuple[int, int]]:
        """(output, tap) on one axis that see a pixel."""
        pairs = ((divmod(at + self.padding - tap, self.stride), tap) for tap in range(self.kernel))
        return [(out, tap) for (out, rest), tap in pairs if rest == 0 and 0 <= out < self.out_size]

    def _require(self, name: str, array: Array, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ArithmeticError(f"{name} has shape {array.shape}, not {shape}")

    def _compare(self, name: str, found: Array, exact: Array, magnitude: Array, depth: int) -> None:
        bound = _LAMBDA * np.sqrt(depth) * _EPS * magnitude.ravel()
        if not np.all(np.abs(found - exact.ravel()) <= bound):
            raise ArithmeticError(f"wrong {name} of {self}")


@dataclass(frozen=True)
class Pool:
    """The largest or the mean of every k x k pixels, in steps of k, of a `size` that k divides; or dX of it,
    from dY."""

    kind: ClassVar[str] = "pool"

    mode: str  # max or avg
    batch: int
    channels: int
    size: int
    kernel: int
    backward: bool
    threads: int
    dtype: str = "float32"

    @property
    def out_size(self) -> int:
        """Height and width of Y."""
        return self.size // self.kernel

    @property
    def flops(self) -> int:
        """A comparison or addition per pixel."""
        return self.batch * self.size**2 * self.channels

    @property
    def bytes(self) -> int:
        """Of X and Y, and of their gradients."""
        pixels = self.batch * self.channels * (self.size**2 + self.out_size**2)
        return 4 * pixels * (2 if self.backward else 1)

    def operands(self) -> tuple[Array, Array]:
        """X and dY, normal deviates."""
        rng = np.random.default_rng(self.flops)
        shapes = [(self.batch, size, size, self.channels) for size in (self.size, self.out_size)]
        x, dy = (on_lines(rng.standard_normal(shape, np.float32)) for shape in shapes)
        return x, dy

    def check_forward(self, x: Array, y: Array) -> None:
        """Raise ArithmeticError unless Y is exactly the largest, or the mean within k k eps."""
        windows = self._windows(x)
        if self.mode == "max":
            self._compare("Y", y, windows.max(axis=-1), np.zeros(()))
        else:
            mean = windows.mean(axis=-1, dtype=np.float64)
            self._compare("Y", y, mean, self.kernel**2 * _EPS * np.abs(windows).mean(axis=-1))

    def check_backward(self, x: Array, dy: Array, dx: Array) -> None:
        """The same of dX. Of equal pixels the first, row by row, gets the gradient."""
        if self.mode == "max":
            chosen = self._windows(x).argmax(axis=-1)[..., None] == np.arange(self.kernel**2)
            exact = np.where(chosen, dy[..., None], np.float32(0))
            self._compare("dX", self._windows(dx), exact, np.zeros(()))
        else:
            share = (dy / self.kernel**2)[..., None]
            self._compare("dX", self._windows(dx), share, 2 * _EPS * np.abs(share))

    def _windows(self, x: Array) -> Array:
        """(N, H', W', C, k k)."""
        n, out, k = self.batch, self.out_size, self.kernel
        parts = x.reshape(n, out, k, out, k, self.channels).transpose(0, 1, 3, 5, 2, 4)
        return parts.reshape(n, out, out, self.channels, k * k)

    def _compare(self, name: str, found: Array, exact: Array, bound: Array) -> None:
        if found.shape != np.broadcast_shapes(found.shape, exact.shape) or not np.all(
            np.abs(found - exact) <= bound
        ):
            raise ArithmeticError(f"wrong {name} of {self}")


def _both(subscripts: str, a: Array, b: Array) -> tuple[Array, Array]:
    """The sum of products, and that of their magnitudes."""
    return np.einsum(subscripts, a, b), np.einsum(subscripts, np.abs(a), np.abs(b))
