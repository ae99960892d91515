"""Winograd's algorithm in float64, from its points, and the size of its terms; imports nothing of gemmule."""

from functools import cache

import numpy as np
from image_reference import Array

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.625, -0.625, 1.5, -1.5)}


@cache
def matrices(m: int) -> tuple[Array, Array, Array]:
    """A^T (m, n), G (n, 3) and B^T (n, n) of F(m, 3), n = m + 2, by Toom and Cook: interpolation at the
    points, and at infinity. Row i of B^T holds the coefficients of the product of (x - p) over the others."""
    points = POINTS[m]
    n = m + 2
    a, g, b = np.zeros((m, n)), np.zeros((n, 3)), np.zeros((n, n))
    for i, point in enumerate(points):
        others = [p for p in points if p != point]
        a[:, i] = point ** np.arange(m)
        g[i] = point ** np.arange(3) / np.prod([point - p for p in others])
        b[i, : n - 1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(points)[::-1]
    return a, g, b


def conv2d(
    m: int, x: Array, weight: Array, padding: tuple[int, int, int, int], *, sizes: bool = False
) -> Array:
    """Of x (N, H, W, C) and weight (K, 3, 3, C), in tiles of m x m outputs. sizes: every number and
    coefficient by its size, which bounds what rounding errors are multiplied with."""
    a, g, b, x, weight = _sized(sizes, *matrices(m), x, weight)
    top, bottom, left, right = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    pixels = _pixels(m, b, x, padding)
    filters = np.einsum("ai,bj,kijc->abck", g, g, weight, optimize=True)
    products = np.einsum("abnyxc,abck->abnyxk", pixels, filters, optimize=True)
    out = np.einsum("pa,qb,abnyxk->nypxqk", a, a, products, optimize=True)
    down, across = pixels.shape[3:5]
    return np.asarray(out.reshape(len(x), down * m, across * m, -1)[:, :height, :width])


def conv2d_weight_grad(
    m: int, x: Array, dz: Array, padding: tuple[int, int, int, int], *, sizes: bool = False
) -> Array:
    """dW (K, 3, 3, C), the adjoint of `conv2d`: G^T (sum over tiles of (A dz A^T) (B^T x B)) G."""
    a, g, b, x, dz = _sized(sizes, *matrices(m), x, dz)
    pixels = _pixels(m, b, x, padding)
    down, across = pixels.shape[3:5]
    room = (0, 0), (0, down * m - dz.shape[1]), (0, across * m - dz.shape[2]), (0, 0)
    tiles = np.pad(dz, room).reshape(len(dz), down, m, across, m, -1)
    grads = np.einsum("pa,qb,nypxqk->abnyxk", a, a, tiles, optimize=True)
    products = np.einsum("abnyxc,abnyxk->abck", pixels, grads, optimize=True)
    return np.asarray(np.einsum("ai,bj,abck->kijc", g, g, products, optimize=True))


def _sized(sizes: bool, *arrays: Array) -> list[Array]:
    return [abs(array.astype(np.float64)) if sizes else array.astype(np.float64) for array in arrays]


def _pixels(m: int, b: Array, x: Array, padding: tuple[int, int, int, int]) -> Array:
    """B^T x B of every tile, (n, n, N, down, across, C)."""
    top, bottom, left, right = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    down, across = -(-height // m), -(-width // m)
    room = (0, down * m + 2 - x.shape[1] - top), (0, across * m + 2 - x.shape[2] - left)
    x = np.pad(x, ((0, 0), (top, room[0][1]), (left, room[1][1]), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(x, (m + 2, m + 2), (1, 2))[:, ::m, ::m]
    return np.asarray(np.einsum("ai,bj,nyxcij->abnyxc", b, b, view, optimize=True))


def turned(weight: Array) -> Array:
    """Filters (C, 3, 3, K) that carry dz to dx."""
    return weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)
