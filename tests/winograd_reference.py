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
    a, g, b = (abs(matrix) if sizes else matrix for matrix in matrices(m))
    x, weight = (
        abs(array) if sizes else array for array in (x.astype(np.float64), weight.astype(np.float64))
    )
    top, bottom, left, right = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    down, across = -(-height // m), -(-width // m)
    room = (0, down * m + 2 - x.shape[1] - top), (0, across * m + 2 - x.shape[2] - left)
    x = np.pad(x, ((0, 0), (top, room[0][1]), (left, room[1][1]), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(x, (m + 2, m + 2), (1, 2))[:, ::m, ::m]
    pixels = np.einsum("ai,bj,nyxcij->abnyxc", b, b, view, optimize=True)
    filters = np.einsum("ai,bj,kijc->abck", g, g, weight, optimize=True)
    products = np.einsum("abnyxc,abck->abnyxk", pixels, filters, optimize=True)
    out = np.einsum("pa,qb,abnyxk->nypxqk", a, a, products, optimize=True)
    return np.asarray(out.reshape(len(x), down * m, across * m, -1)[:, :height, :width])


def turned(weight: Array) -> Array:
    """Filters (C, 3, 3, K) that carry dz to dx."""
    return weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)
