"""The shape sets of the matrix products, from shapes.txt, which the native benchmark reads too."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NAMES = ("square", "dense", "skinny", "f64")
_QUICK_STEP = 7  # shares no factor with the lengths of the lists that the sets are products of


class Shape(NamedTuple):
    """C (m, n) = op(A) op(B) over a depth of k. An operand is transposed where it lies in memory the other
    way round: B in Z = X W^T, A in dW = dZ^T X."""

    label: str
    m: int
    n: int
    k: int
    trans_a: bool = False
    trans_b: bool = False


def shape_set(name: str, quick: bool = False) -> list[Shape]:
    """The shapes of one of NAMES; every seventh where `quick`. ValueError for another name."""
    if name not in NAMES:
        raise ValueError(f"unknown shape set {name!r}; there are {', '.join(NAMES)}")
    lists = _read()
    if name == "square":
        shapes = squares(map(int, lists["square"]))
    elif name == "dense":
        shapes = _dense(lists["batches"], lists["widths"])
    elif name == "skinny":
        shapes = _skinny(lists["skinny"], lists["skinny-rest"])
    else:
        shapes = squares(map(int, lists["square"])) + _dense(lists["f64-batches"], lists["widths"])
    return shapes[::_QUICK_STEP] if quick else shapes


def squares(sizes: Iterable[int]) -> list[Shape]:
    """N x N x N."""
    return [Shape(str(size), size, size, size) for size in sizes]


def _dense(batches: Iterable[str], widths: Iterable[str]) -> list[Shape]:
    pairs = [_pair(text) for text in widths]
    shapes = []
    for batch in map(int, batches):
        for n_in, n_out in pairs:
            layer = f"{batch}: {n_in}-{n_out}"
            shapes += [
                Shape(f"Z {layer}", batch, n_out, n_in, trans_b=True),
                Shape(f"dX {layer}", batch, n_in, n_out),
                Shape(f"dW {layer}", n_out, n_in, batch, trans_a=True),
            ]
    return shapes


def _skinny(small: Iterable[str], rest: Iterable[str]) -> list[Shape]:
    pairs = [_pair(text) for text in rest]
    return [
        Shape(f"{m} x {n} x {k}", m, n, k)
        for s in map(int, small)
        for p, q in pairs
        for m, n, k in ((s, p, q), (p, s, q), (p, q, s))
    ]


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition("x")
    return int(first), int(second)


def _read() -> dict[str, list[str]]:
    lists = {}
    for line in Path(__file__).with_name("shapes.txt").read_text(encoding="ascii").splitlines():
        name, *values = line.partition("#")[0].split() or [""]
        if name:
            lists[name] = values
    return lists
