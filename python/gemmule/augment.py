"""Images changed at random while they are trained on: `fit(X, y, augment=gm.Augment(flip=True, crop=4))`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, building
from ._layout import batch_to_first, batch_to_last, checked_layout
from ._windows import Pair, PairLike, ends
from .arrays import Array, Shape, any_array, fraction, real_array, real_number, unknown_name
from .errors import ShapeError

FILLS = ("edge", "reflect")


@dataclass(frozen=True, init=False)
class Augment:
    """How images are moved and mirrored at random, each time that `fit` trains on them.

        net.fit(X, y, augment=gm.Augment(flip=True, crop=4))

    From an image x (H, W, C) it makes y of the same shape:

        y[i, j] = x[i' + d, j' + e],  i' = i or H - 1 - i,  j' = j or W - 1 - j

    where d is uniform on the whole numbers -p, ..., p, and e on -q, ..., q. All is drawn from the network's
    Philox stream at (step, sample): anew for every step, and by the seed alone, whatever the number of
    threads, in batches that `accumulate` and after `resume` too.

    flip: the probability that left and right are exchanged; True is 0.5.
    vertical_flip: the same of top and bottom.
    crop: p = q, or (p, q), in pixels. The image is padded by so many on each side, then cut to its old size
        at a random place: 4 for CIFAR in He et al., "Deep residual learning for image recognition" (2016),
        section 4.2. At least 0, and below the image's height and width.
    shift: the same move as a share of the image, p / H = q / W, or (p / H, q / W): at least 0 and below 1,
        rounded to whole pixels.
    fill: what is seen beyond the edge: a number in the units of X (for uint8 a byte, before `scale`), "edge",
        the nearest pixel, or "reflect", the image mirrored at its outermost pixels.

    ValueError for numbers outside these ranges and for `crop` and `shift` together; TypeError for what is no
    number. `fit` raises ShapeError for a network whose samples are no images, or smaller than the crop."""

    flip: float
    vertical_flip: float
    crop: Pair
    shift: tuple[float, float]
    fill: float | str

    def __init__(
        self,
        *,
        flip: bool | float = False,
        vertical_flip: bool | float = False,
        crop: PairLike = 0,
        shift: float | Sequence[float] = 0.0,
        fill: float | str = 0.0,
    ) -> None:
        checked = {
            "flip": _probability(flip, "Augment: flip"),
            "vertical_flip": _probability(vertical_flip, "Augment: vertical_flip"),
            "crop": ends(crop, "Augment: crop"),
            "shift": _shares(shift, "Augment: shift"),
            "fill": _checked_fill(fill, "Augment: fill"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if any(self.crop) and any(self.shift):
            raise ValueError(
                f"Augment: crop={crop!r} and shift={shift!r} are the same move, in pixels and as a share of "
                "the image; give one"
            )

    def __call__(self, X: ArrayLike, *, rng: Any, step: int = 0, layout: str = "channels_last") -> Array:
        """The batch X (N, H, W, C) as a network of this seed would see it in step `step`: to look at, and for
        loops by hand.

        rng: as of `Network`. step: the number of training steps before. layout: "channels_first" for
        (N, C, H, W). uint8 and float32 stay what they are, other types become float64."""
        first = checked_layout(layout, "Augment: layout") == "channels_first"
        if not isinstance(step, int | np.integer) or isinstance(step, bool) or not 0 <= step < 2**63:
            raise ValueError(f"Augment: step is {step!r}; it must be an integer, not negative")
        key = building.philox_key(rng)
        images = any_array(X, "Augment: X")
        if images.ndim != 4:
            due = "(N, C, H, W)" if first else "(N, H, W, C)"
            raise ShapeError(f"Augment: X has shape {images.shape}; images {due} are due")
        images = batch_to_last(images) if first else images
        if images.dtype == np.uint8:
            images = np.require(images, requirements=("C", "A"))
        else:
            images = real_array(
                images, "float32" if images.dtype.name == "float32" else "float64", "Augment: X"
            )
        made = np.empty_like(images)
        self.augmenter(images.shape[1:], images.dtype).apply(images, made, key, step)
        return batch_to_first(made) if first else made

    def augmenter(self, image: Shape, dtype: "np.dtype[Any]") -> _core.Augmenter:
        """What does it to images (H, W, C) of this type. ShapeError where they are none, or too small;
        ValueError for a `fill` that the type does not hold."""
        moves = self.crop
        if any(self.shift) and len(image) == 3:
            moves = round(self.shift[0] * image[0]), round(self.shift[1] * image[1])
        fill, value = (self.fill, 0.0) if isinstance(self.fill, str) else ("constant", self.fill)
        return _core.Augmenter(image, dtype.name, self.flip, self.vertical_flip, *moves, fill, value)


def _probability(value: Any, what: str) -> float:
    if isinstance(value, bool | np.bool_):
        return 0.5 if value else 0.0
    number = real_number(value, what)
    if not 0 <= number <= 1:
        raise ValueError(f"{what} is {value}; a probability is at least 0 and at most 1")
    return number


def _shares(value: Any, what: str) -> tuple[float, float]:
    both = (
        tuple(value)
        if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        else (value,) * 2
    )
    if len(both) != 2:
        raise TypeError(f"{what} must be a number or 2 of them, not {value!r}")
    for share in both:
        if real_number(share, what) >= 1:
            raise ValueError(f"{what} is {value!r}; it is a share, below 1: crop takes pixels")
    return fraction(both[0], what), fraction(both[1], what)


def _checked_fill(value: Any, what: str) -> float | str:
    if isinstance(value, str):
        if value not in FILLS:
            raise unknown_name(what, value, (*FILLS, "a number"))
        return value
    number = real_number(value, what)
    if not math.isfinite(number):
        raise ValueError(f"{what} is {value}; it must be finite")
    return number
