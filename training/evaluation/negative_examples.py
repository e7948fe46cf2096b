"""Images that are not real digits: what people may send to be scored, besides generated images."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from serving.contract import IMAGE_SIDE
from training.data import Images

SYMMETRIC: Final[Mapping[str, tuple[int, ...]]] = {"mirrored": (0, 1, 8), "upside_down": (0, 1, 2, 3, 5, 8)}
"""Digits that may still look real after the change: a 3 upside down is a 3, and a 2 and a 5 look like each other."""
MIN_SHIFT: Final = 4
"""Pixels that a shifted digit moves at least. MNIST centres its digits to the pixel by their mass."""
MAX_SHIFT: Final = 8
_PATCH: Final = 7
_HALF: Final = IMAGE_SIDE // 2


def mixed(images: Images, labels: NDArray[np.uint8], rng: np.random.Generator) -> Images:
    """Makes a negative example of each of the images, which are in random order, of the kinds of TURNS in turn.

    A digit that would still look real after the change is inverted instead.
    """
    made = np.empty_like(images)
    for turn, kind in enumerate(TURNS[: len(images)]):
        rows = slice(turn, None, len(TURNS))
        symmetric = np.isin(labels[rows], SYMMETRIC.get(kind, ()))
        made[rows] = np.where(symmetric[:, None, None], 255 - images[rows], NEGATIVE_EXAMPLES[kind](images[rows], rng))
    return made


def _uniform(images: Images, rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    """Draws one number for each image, in a shape that broadcasts over its pixels."""
    return rng.uniform(low, high, (len(images), 1, 1))


def _blank(images: Images, rng: np.random.Generator) -> Images:
    """Black, white or any gray; some with a little grain."""
    level, grain = rng.random((2, len(images), 1, 1))
    levels = np.where(level < 0.3, 0, np.where(level < 0.5, 255, rng.integers(0, 256, level.shape)))
    return _pixels(levels + rng.normal(0, 3, images.shape) * (grain < 0.3))


def _shuffled_patches(images: Images, rng: np.random.Generator) -> Images:
    across = IMAGE_SIDE // _PATCH
    patches = images.reshape(-1, across, _PATCH, across, _PATCH).swapaxes(2, 3).reshape(-1, across**2, _PATCH, _PATCH)
    patches = patches[:, rng.permutation(across**2)]
    return patches.reshape(-1, across, across, _PATCH, _PATCH).swapaxes(2, 3).reshape(images.shape)


def _shifted(images: Images, rng: np.random.Generator) -> Images:
    """Moved along one axis or both; the new border is black."""
    moves = rng.integers(MIN_SHIFT, MAX_SHIFT + 1, (len(images), 2)) * rng.choice([-1, 1], (len(images), 2))
    moves[np.arange(len(images)), rng.integers(0, 2, len(images))] *= rng.integers(0, 2, len(images))
    return np.array([ndimage.shift(image, move, order=0) for image, move in zip(images, moves, strict=True)])


def _resized(images: Images, rng: np.random.Generator) -> Images:
    """Too small in a black frame, or too large and cropped."""
    made = []
    for image in images:
        side = int(rng.choice([*range(10, 21, 2), *range(36, 57, 2)]))
        frame, margin = Image.new("L", (IMAGE_SIDE, IMAGE_SIDE)), (IMAGE_SIDE - side) // 2
        frame.paste(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), (margin, margin))
        made.append(np.asarray(frame))
    return np.array(made)


def _others(images: Images) -> Images:
    return np.roll(images, 1, axis=0)


def _pixels(levels: NDArray[np.floating[Any]]) -> Images:
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


NEGATIVE_EXAMPLES: Final[Mapping[str, Callable[[Images, np.random.Generator], Images]]] = {
    "noise": lambda images, rng: rng.integers(0, 256, images.shape, np.uint8),
    "normal_noise": lambda images, rng: _pixels(
        rng.normal(_uniform(images, rng, 0, 255), _uniform(images, rng, 5, 128), images.shape)
    ),
    "specks": lambda images, rng: np.uint8(255) * (rng.random(images.shape) < _uniform(images, rng, 0, 1)),
    "noisy": lambda images, rng: _pixels(images + rng.normal(0, _uniform(images, rng, 10, 100), images.shape)),
    "blank": _blank,
    "inverted": lambda images, rng: 255 - images,
    "shuffled": lambda images, rng: rng.permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape),
    "shuffled_patches": _shuffled_patches,
    "mirrored": lambda images, rng: images[:, :, ::-1],
    "upside_down": lambda images, rng: images[:, ::-1],
    "rotated": lambda images, rng: np.rot90(images, int(rng.choice([1, 3])), axes=(1, 2)),
    "shifted": _shifted,
    "wrapped": lambda images, rng: np.roll(images, rng.integers(7, 22, 2).tolist(), axis=(1, 2)),
    "resized": _resized,
    "overlaid": lambda images, rng: np.maximum(images, _others(images)),
    # The upper half of one digit and the lower half of another.
    "half_and_half": lambda images, rng: np.hstack([images[:, :_HALF], _others(images)[:, _HALF:]]),
}
"""By kind, from real digits, uint8 [N, 28, 28], to as many negative examples."""

TURNS: Final = (*NEGATIVE_EXAMPLES, *["upside_down"] * 8)
"""The kinds of a mixture. Upside-down digits are the hardest to detect, and most of them are inverted instead."""
