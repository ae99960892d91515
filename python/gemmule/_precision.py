"""What the operands of products are rounded to, and the process-wide setting that overrules it."""

from typing import Literal

from .arrays import unknown_name

PRECISIONS = ("full", "bf16")
NUMERICS = ("default", "strict")

Precision = Literal["full", "bf16"]
Numerics = Literal["default", "strict"]

_numerics: Numerics = "default"


def set_numerics(mode: Numerics) -> None:
    """How far results may be from those of plain float32 or float64 arithmetic, in the whole process.

    "default": operands are rounded to bfloat16 where `precision="bf16"` asks for it, and convolutions of
    3 x 3 are made by Winograd's algorithm where that is faster, with rounding errors about twice as large.
    "strict": neither; all products are made in full precision, convolutions as plain sums of them. It counts
    from the next call on; a fit that runs goes on as it began. ValueError for another mode."""
    global _numerics
    if mode not in NUMERICS:
        raise unknown_name("numerics", mode, NUMERICS)
    _numerics = mode


def numerics() -> Numerics:
    """The mode that `set_numerics` chose last, "default" before."""
    return _numerics


def strict() -> bool:
    """Whether `set_numerics` asks for plain float32 or float64 arithmetic."""
    return _numerics == "strict"


def checked_precision(precision: str, what: str) -> str:
    """`precision`, one of PRECISIONS; ValueError names the argument and the choices."""
    if precision not in PRECISIONS:
        raise ValueError(f"{what} is {precision!r}; known: {', '.join(PRECISIONS)}")
    return precision


def precision_now(precision: str) -> str:
    """What a product of this precision computes in under the present numerics."""
    return "full" if strict() else precision
