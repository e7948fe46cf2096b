"""What a detector of real digits is shown besides generated ones: everything else that people send."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract import IMAGE_SIDE
from training.score_evaluation import shifted

Images = NDArray[np.uint8]
Kind = Callable[[Images, NDArray[np.uint8], Images, np.random.Generator], Images]
"""From real digits, uint8 [N, 28, 28], their labels, uint8 [N], and other real digits, uint8 [N, 28, 28], to impostors
of one kind, uint8 [N, 28, 28]."""

SAME_WHEN_MIRRORED: Final = (0, 1, 8)
"""Digits that may still look like real ones when they are mirrored, left to right."""
SAME_UPSIDE_DOWN: Final = (0, 1, 2, 3, 5, 8)
"""The same, upside down: a 3 stays one, and a 2 and a 5 turn into one another."""
_PATCH: Final = 7


def impostors(images: Images, labels: NDArray[np.uint8], rng: np.random.Generator) -> Images:
    """As many impostors as images, of every kind by turns.

    A digit that would still look real when flipped is inverted in place of that.

    Args:
        images: uint8 [N, 28, 28], real digits, in random order.
        labels: uint8 [N], what they are.
        rng: decides everything that is drawn.

    Returns:
        uint8 [N, 28, 28].
    """
    made = np.empty_like(images)
    others = np.roll(images, 1, axis=0)
    for turn, kind in enumerate(_KINDS[: len(images)]):
        place = slice(turn, None, len(_KINDS))
        made[place] = kind(images[place], labels[place], others[place], rng)
    return made


def _noise(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return rng.integers(0, 256, images.shape, np.uint8)


def _normal_noise(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    mean, spread = rng.uniform(0, 255, (len(images), 1, 1)), rng.uniform(5, 128, (len(images), 1, 1))
    return _pixels(rng.normal(mean, spread, images.shape))


def _specks(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return np.where(rng.random(images.shape) < rng.uniform(0, 1, (len(images), 1, 1)), 255, 0).astype(np.uint8)


def _noisy(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return _pixels(images + rng.normal(0, rng.uniform(10, 100, (len(images), 1, 1)), images.shape))


def _blank(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    """Black, white or any gray, now and then with a little grain."""
    draws = rng.random((2, len(images), 1, 1))
    levels = np.where(draws[0] < 0.3, 0, np.where(draws[0] < 0.5, 255, rng.integers(0, 256, draws[0].shape)))
    return _pixels(levels + rng.normal(0, 3, images.shape) * (draws[1] < 0.3))


def _inverted(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return 255 - images


def _shuffled(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return rng.permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape)


def _shuffled_patches(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    across = IMAGE_SIDE // _PATCH
    patches = images.reshape(-1, across, _PATCH, across, _PATCH).swapaxes(2, 3).reshape(-1, across**2, _PATCH, _PATCH)
    patches = patches[:, rng.permutation(across**2)]
    return patches.reshape(-1, across, across, _PATCH, _PATCH).swapaxes(2, 3).reshape(images.shape)


def _mirrored(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return np.where(_one_of(labels, SAME_WHEN_MIRRORED), 255 - images, images[:, :, ::-1])


def _upside_down(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return np.where(_one_of(labels, SAME_UPSIDE_DOWN), 255 - images, images[:, ::-1])


def _turned(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    """By a right angle: even a 0 lies on its side then."""
    return np.rot90(images, int(rng.choice([1, 3])), axes=(1, 2))


def _shifted(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return shifted(images, rng)


def _rolled(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    """Shifted, and what leaves on one side comes in on the other."""
    down, right = rng.integers(7, 22, 2).tolist()
    return np.roll(images, (down, right), axis=(1, 2))


def _resized(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    """Too small in a black frame, or too large and cut off."""
    made = np.zeros_like(images)
    for target, image in zip(made, images, strict=True):
        side = int(rng.choice([*range(10, 21, 2), *range(36, 57, 2)]))
        resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        margin = abs(IMAGE_SIDE - side) // 2
        if side < IMAGE_SIDE:
            target[margin : margin + side, margin : margin + side] = resized
        else:
            target[:] = resized[margin : margin + IMAGE_SIDE, margin : margin + IMAGE_SIDE]
    return made


def _laid_over(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return np.maximum(images, others)


def _half_and_half(images: Images, labels: NDArray[np.uint8], others: Images, rng: np.random.Generator) -> Images:
    return np.concatenate([images[:, : IMAGE_SIDE // 2], others[:, IMAGE_SIDE // 2 :]], axis=1)


def _one_of(labels: NDArray[np.uint8], digits: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.isin(labels, digits)[:, None, None]


def _pixels(levels: NDArray[np.floating[Any]]) -> Images:
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


_KINDS: Final[tuple[Kind, ...]] = (
    _noise,
    _normal_noise,
    _specks,
    _noisy,
    _blank,
    _inverted,
    _shuffled,
    _shuffled_patches,
    _mirrored,
    _upside_down,
    _turned,
    _shifted,
    _rolled,
    _resized,
    _laid_over,
    _half_and_half,
)
