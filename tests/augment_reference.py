"""Augmentation as it is defined, in NumPy: images padded, cut and mirrored one by one. Nothing here imports
gemmule."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reference import philox4x32

Array = NDArray[Any]


class Moves(NamedTuple):
    """What may be done to images: probabilities of mirroring, the largest moves, and what lies beyond."""

    flip: float = 0.0
    vertical_flip: float = 0.0
    most: tuple[int, int] = (0, 0)
    fill: float | str = 0.0

    def draws(self, count: int, key: int, step: int) -> Array:
        """(count, 4): whether mirrored, whether upside down, and where in the padded image the view begins.
        Counter {0, sample, 2^32 - 2, step}, a word for each."""
        counter = np.zeros((count, 4), np.uint64)
        counter[:, 1] = np.arange(count)
        counter[:, 2:] = 0xFFFFFFFE, step % 2**32
        words = philox4x32(counter, key).astype(np.uint64)
        places = 2 * np.array(self.most, np.uint64) + np.uint64(1)
        uniform = words[:, :2] * 2.0**-32
        return np.concatenate(
            [uniform < [self.flip, self.vertical_flip], words[:, 2:] * places >> np.uint64(32)], axis=1
        ).astype(np.int64)

    def apply(self, images: Array, key: int, step: int) -> Array:
        """The batch (N, H, W, C) as it is seen in a step: padded, cut, mirrored."""
        (p, q), (height, width) = self.most, images.shape[1:3]
        sides = ((0, 0), (p, p), (q, q), (0, 0))
        if isinstance(self.fill, str):
            padded = np.pad(images, sides, mode=self.fill)  # type: ignore[call-overload]
        else:
            padded = np.pad(images, sides, constant_values=self.fill)
        made = np.empty_like(images)
        for n, (mirrored, upside_down, top, left) in enumerate(self.draws(len(images), key, step)):
            view = padded[n, top : top + height, left : left + width]
            made[n] = view[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        return made
