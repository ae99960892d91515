"""Images moved and mirrored at random, against NumPy that draws the same numbers."""

import pickle
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from augment_reference import Moves
from helpers import Array, run_python

import gemmule as gm
from gemmule import _core
from gemmule.augment import Augment

HEIGHT, WIDTH = 6, 5


def numbered(count: int, channels: int, dtype: str, height: int = HEIGHT, width: int = WIDTH) -> Array:
    """Images of numbers that differ within an image (bytes: nearly)."""
    numbers = np.arange(1, 1 + count * height * width * channels).reshape(count, height, width, channels)
    return (numbers % 251 if dtype == "uint8" else numbers).astype(dtype)


def augmented(moves: Moves, images: Array, key: int, step: int) -> Array:
    fill, value = (moves.fill, 0.0) if isinstance(moves.fill, str) else ("constant", moves.fill)
    augmenter = _core.Augmenter(
        images.shape[1:], images.dtype.name, moves.flip, moves.vertical_flip, *moves.most, fill, value
    )
    made = np.full_like(images, 77)
    augmenter.apply(images, made, key, step)
    return made


# -- what is done to an image --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("fill", [0.0, 7.0, "edge", "reflect"])
def test_moves_of_numpy(dtype: str, channels: int, fill: float | str) -> None:
    """Exactly, since nothing is computed; moves up to the largest, where one row or column is left."""
    images = numbered(40, channels, dtype)
    for flips, most in product(
        [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5)], [(0, 0), (0, 2), (HEIGHT - 1, WIDTH - 1)]
    ):
        moves = Moves(*flips, most, fill)
        for key, step in [(0, 0), (2**63 + 5, 7), (123456789012345, 2**32 + 3)]:
            found = augmented(moves, images, key, step)
            np.testing.assert_array_equal(found, moves.apply(images, key, step))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 33)])
def test_small_images(shape: tuple[int, int]) -> None:
    images = numbered(20, 3, "float32", *shape)
    for fill in (0.0, "edge", "reflect"):
        moves = Moves(0.5, 0.5, (shape[0] - 1, shape[1] - 1), fill)
        np.testing.assert_array_equal(augmented(moves, images, 3, 1), moves.apply(images, 3, 1))


def test_every_move_occurs_as_often() -> None:
    """Of N images an outcome of probability s has N s, within 5 deviations sqrt(N s (1 - s)). The middle of
    what comes out and its neighbours tell the outcome."""
    count, most = 40_000, (2, 1)
    images = np.broadcast_to(numbered(1, 1, "float32"), (count, HEIGHT, WIDTH, 1))
    for flip in (0.5, 0.25):
        out = augmented(Moves(flip, 0.5, most), np.ascontiguousarray(images), 11, 5)[..., 0].astype(int) - 1
        at = out[:, 2, 2]
        mirrored, upside_down = out[:, 2, 3] < at, out[:, 3, 2] < at
        down = at // WIDTH - np.where(upside_down, HEIGHT - 3, 2)
        across = at % WIDTH - 2
        outcomes, found = np.unique(
            np.stack([mirrored, upside_down, down, across]), axis=1, return_counts=True
        )
        places = (2 * most[0] + 1) * (2 * most[1] + 1)
        assert outcomes.shape[1] == 4 * places
        share = np.where(outcomes[0] == 1, flip, 1 - flip) / 2 / places
        assert (np.abs(found - count * share) < 5 * np.sqrt(count * share * (1 - share))).all()
        assert np.abs(outcomes[2]).max() == most[0] and np.abs(outcomes[3]).max() == most[1]


def test_probabilities_of_none_and_all() -> None:
    images = numbered(200, 2, "float64")
    np.testing.assert_array_equal(augmented(Moves(), images, 1, 1), images)
    np.testing.assert_array_equal(augmented(Moves(1.0, 1.0), images, 1, 1), images[:, ::-1, ::-1])


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_beyond_the_images_is_touched() -> None:
    done = run_python("import guarded; guarded.augment()")
    assert done.returncode == 0, done.stderr


# -- by hand -------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    """It is the view of a network of that seed; layouts, types and strides are what they were."""
    images = numbered(30, 3, "float32")
    augment = gm.Augment(flip=True, crop=(1, 2), fill=-1)
    found = augment(images, rng=5, step=2)
    moves = Moves(0.5, 0.0, (1, 2), -1.0)
    np.testing.assert_array_equal(found, moves.apply(images, gm.Network([gm.Flatten()], rng=5)._key, 2))
    first = augment(images.transpose(0, 3, 1, 2), rng=5, step=2, layout="channels_first")
    np.testing.assert_array_equal(first, found.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(augment(np.repeat(images, 2, axis=3)[..., ::2], rng=5, step=2), found)
    assert found.dtype == "float32" and augment(images.astype(int), rng=5).dtype == "float64"
    assert Augment(crop=1)(np.zeros((2, 4, 4, 1), np.uint8), rng=0).dtype == "uint8"
    assert not np.array_equal(augment(images, rng=6, step=2), found)
    assert not np.array_equal(augment(images, rng=5, step=3), found)
    assert augment(images[:0], rng=5).shape == (0, *images.shape[1:])


def test_a_description() -> None:
    augment = gm.Augment(flip=True, crop=4)
    assert augment == Augment(flip=0.5, crop=(4, 4)) != Augment(flip=True)
    assert pickle.loads(pickle.dumps(augment)) == augment and hash(augment) == hash(Augment(flip=0.5, crop=4))
    assert "flip=0.5" in repr(augment) and "crop=(4, 4)" in repr(augment)
    with pytest.raises(AttributeError):
        augment.flip = 1.0  # type: ignore[misc]
    images = numbered(9, 1, "float32", 20, 30)
    np.testing.assert_array_equal(
        Augment(shift=0.1)(images, rng=0), Augment(crop=(2, 3))(images, rng=0)
    )  # 0.1 of 20 and of 30
    np.testing.assert_array_equal(
        Augment(shift=(0, 0.09))(images, rng=0), Augment(crop=(0, 3))(images, rng=0)
    )


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"flip": 1.5}, ValueError, r"Augment: flip is 1\.5"),
        ({"flip": -0.1}, ValueError, "flip"),
        ({"flip": np.nan}, ValueError, "flip"),
        ({"flip": "yes"}, TypeError, "flip must be a number"),
        ({"vertical_flip": 2}, ValueError, "vertical_flip is 2"),
        ({"vertical_flip": None}, TypeError, "vertical_flip"),
        ({"crop": -1}, ValueError, "crop is -1"),
        ({"crop": (1, -2)}, ValueError, "crop"),
        ({"crop": 2**31}, ValueError, "crop"),
        ({"crop": 1.5}, TypeError, "crop must be an integer or 2 of them, not 1.5"),
        ({"crop": True}, TypeError, "crop"),
        ({"crop": (1, 2, 3)}, TypeError, "crop"),
        ({"shift": 3}, ValueError, "below 1: crop takes pixels"),
        ({"shift": -0.1}, ValueError, r"shift is -0\.1"),
        ({"shift": np.inf}, ValueError, "shift"),
        ({"shift": "0.1"}, TypeError, "shift must be a number"),
        ({"shift": (0.1, 0.1, 0.1)}, TypeError, "shift must be a number or 2 of them"),
        ({"crop": 1, "shift": 0.1}, ValueError, r"crop=1 and shift=0\.1 are the same move"),
        ({"fill": "wrap"}, ValueError, "fill 'wrap'; known: edge, reflect, a number"),
        ({"fill": np.inf}, ValueError, "fill is inf; it must be finite"),
        ({"fill": None}, TypeError, "fill"),
    ],
)
def test_descriptions_of_nothing(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Augment(**arguments)


def test_bad_batches_by_hand() -> None:
    augment, x = Augment(crop=1), np.zeros((2, 4, 4, 3))
    with pytest.raises(gm.ShapeError, match=r"X has shape \(4, 4, 3\); images \(N, H, W, C\) are due"):
        augment(x[0], rng=0)
    with pytest.raises(gm.ShapeError, match=r"images \(N, C, H, W\) are due"):
        augment(x[0], rng=0, layout="channels_first")
    with pytest.raises(ValueError, match="layout"):
        augment(x, rng=0, layout="NHWC")
    for step in (-1, 0.5, True):
        with pytest.raises(ValueError, match="step"):
            augment(x, rng=0, step=step)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        augment(x, rng=-1)
    with pytest.raises(gm.DTypeError):
        augment(x.astype(complex), rng=0)
    with pytest.raises(gm.ShapeError, match="leave nothing"):
        augment(x[:, :1], rng=0)
    for empty in (x[:, :0], x[:, :, :0], x[..., :0]):
        with pytest.raises(gm.ShapeError, match="hold no pixel"):
            augment(empty, rng=0)
    maker = _core.Augmenter((4, 4, 3), "float64", 0.5, 0.0, 1, 1, "constant", 0.0)
    with pytest.raises(gm.ShapeError):
        maker.apply(x, np.zeros((3, 4, 4, 3)), 0, 0)
    with pytest.raises(gm.DTypeError):
        maker.apply(x, x.astype("float32"), 0, 0)
