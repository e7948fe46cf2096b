"""The pictures of a report: a few hundred digits, chosen from an evaluation's thousands."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from serving.contract import CLASSES, IMAGE_SIDE
from serving.files import write_atomically
from serving.noise import noise_from_seeds
from serving.walks import walk

PICTURES_FILE: Final = "pictures.npz"

PER_DIGIT: Final = 12
WALK_STEPS: Final = 12
COMPARED: Final = 10
NEIGHBOURS: Final = 3
LEAST_LEGIBLE: Final = 18
NO_SEED: Final = -1
"""Fills the places of a digit that was made fewer than PER_DIGIT times."""

_CHUNK: Final = 10_000
_PIXELS: Final = IMAGE_SIDE**2

Images = NDArray[np.uint8]
Generate = Callable[[NDArray[np.float32]], Images]
"""From noise float32 [N, 100] to images uint8 [N, 28, 28] or [N, 28, 28, 1]."""


@dataclass(frozen=True)
class Pictures:
    """What a report shows. Sample i of an evaluation is the image of seed i.

    Attributes:
        by_digit: uint8 [10, PER_DIGIT, 28, 28], the first samples that read as each digit, by seed; black where
            there are no more.
        by_digit_seeds: int64 [10, PER_DIGIT], NO_SEED where there are no more.
        walks: uint8 [W, WALK_STEPS, 28, 28], images on the way from one seed's noise to another's; W is 0 where
            nothing could be generated from noise.
        walk_seeds: int64 [W, 2], the ends of each walk.
        nearest: uint8 [P, 28, 28], of each digit the sample nearest to any training image, filled up to COMPARED
            with the next nearest of all where a digit is never made; then as many at random.
        nearest_seeds: int64 [P].
        neighbours: uint8 [P, NEIGHBOURS, 28, 28], the training images nearest to each of them, nearest first.
        neighbour_distances: float32 [P, NEIGHBOURS], Euclidean, on pixels from 0 to 1.
        least_legible: uint8 [L, 28, 28], the samples that the classifier is least sure of, least sure first.
        least_legible_seeds: int64 [L].
        least_legible_digits: uint8 [L], the digits that they read as.
        least_legible_confidences: float32 [L].
    """

    by_digit: Images
    by_digit_seeds: NDArray[np.int64]
    walks: Images
    walk_seeds: NDArray[np.int64]
    nearest: Images
    nearest_seeds: NDArray[np.int64]
    neighbours: Images
    neighbour_distances: NDArray[np.float32]
    least_legible: Images
    least_legible_seeds: NDArray[np.int64]
    least_legible_digits: NDArray[np.uint8]
    least_legible_confidences: NDArray[np.float32]

    def write(self, directory: Path) -> Path:
        """Writes pictures.npz into a directory."""
        archive = BytesIO()
        np.savez_compressed(archive, **{field.name: getattr(self, field.name) for field in fields(self)})
        write_atomically(directory / PICTURES_FILE, archive.getvalue())
        return directory / PICTURES_FILE

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Reads what :meth:`write` wrote, or None where there is none."""
        path = directory / PICTURES_FILE
        if not path.exists():
            return None
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return cls(**{field.name: archive[field.name] for field in fields(cls)})


def choose(
    samples: Images,
    digits: NDArray[Any],
    confidences: NDArray[Any],
    distances: NDArray[Any],
    training_images: Images,
    generate: Generate | None = None,
) -> Pictures:
    """Chooses a report's pictures from an evaluation's samples. The same samples give the same pictures.

    Args:
        samples: uint8 [N, 28, 28], the images of the seeds 0 … N-1.
        digits: integers [N], the digit that each reads as.
        confidences: floats [N], the classifier's probability for that digit.
        distances: floats [N], the Euclidean distance of each to its nearest training image.
        training_images: uint8 [M, 28, 28].
        generate: makes the images of the walks; without it there are none.
    """
    by_digit_seeds = np.full((CLASSES, PER_DIGIT), NO_SEED, np.int64)
    for digit, row in enumerate(by_digit_seeds):
        seeds = np.flatnonzero(digits == digit)[:PER_DIGIT]
        row[: len(seeds)] = seeds
    by_digit = np.where((by_digit_seeds == NO_SEED)[..., None, None], np.uint8(0), samples[by_digit_seeds])

    walk_seeds = _ends_of_walks(digits, confidences) if generate else np.zeros((0, 2), np.int64)
    walks = [_walk(int(start), int(end), generate) for start, end in walk_seeds] if generate else []

    closest = _closest(digits, distances)
    others = np.setdiff1d(np.arange(len(samples)), closest)
    drawn = np.random.default_rng(0).choice(others, min(COMPARED, len(others)), replace=False)
    nearest_seeds = np.concatenate([closest, np.sort(drawn)]).astype(np.int64)
    neighbours, neighbour_distances = nearest_images(samples[nearest_seeds], training_images, NEIGHBOURS)

    unsure = np.argsort(confidences, kind="stable")[:LEAST_LEGIBLE].astype(np.int64)
    return Pictures(
        by_digit=by_digit,
        by_digit_seeds=by_digit_seeds,
        walks=np.stack(walks) if walks else np.zeros((0, WALK_STEPS, IMAGE_SIDE, IMAGE_SIDE), np.uint8),
        walk_seeds=walk_seeds,
        nearest=samples[nearest_seeds],
        nearest_seeds=nearest_seeds,
        neighbours=training_images[neighbours],
        neighbour_distances=neighbour_distances,
        least_legible=samples[unsure],
        least_legible_seeds=unsure,
        least_legible_digits=np.asarray(digits[unsure], np.uint8),
        least_legible_confidences=np.asarray(confidences[unsure], np.float32),
    )


def nearest_images(images: Images, others: Images, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest of ``others`` to each image, by Euclidean distance on pixels from 0 to 1.

    Args:
        images: uint8 [N, 28, 28].
        others: uint8 [M, 28, 28].
        count: how many; fewer come back where M is less.

    Returns:
        Their indices, int64 [N, count], nearest first, and their distances, float32 [N, count].
    """
    queries = images.reshape(-1, _PIXELS).astype(np.float32)
    squares = (queries**2).sum(1)
    distances = np.empty((len(queries), len(others)), np.float32)
    for first in range(0, len(others), _CHUNK):
        chunk = others[first : first + _CHUNK].reshape(-1, _PIXELS).astype(np.float32)
        distances[:, first : first + _CHUNK] = squares[:, None] + (chunk**2).sum(1) - 2 * (queries @ chunk.T)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    # Those few again, exactly: squares of this size are rounded in float32, and a copy's distance must be 0.
    differences = images[:, None].astype(np.float64) - others[order]
    return order.astype(np.int64), np.sqrt((differences**2).sum((2, 3))).astype(np.float32) / np.float32(255)


def _closest(digits: NDArray[Any], distances: NDArray[Any]) -> NDArray[np.int64]:
    """The nearest of each digit, for the nearest of all are all ones: thin, and so near to other thin ones."""
    order = np.argsort(distances, kind="stable")
    _, first = np.unique(digits[order], return_index=True)
    others = np.setdiff1d(np.arange(len(order)), first)
    places = np.concatenate([first, others[: COMPARED - len(first)]])
    return np.asarray(order[places], np.int64)


def _ends_of_walks(digits: NDArray[Any], confidences: NDArray[Any]) -> NDArray[np.int64]:
    """From the surest 0 among the first samples to the surest 1, from 2 to 3 and so on; digits not made are skipped."""
    surest = []
    for digit in range(CLASSES):
        seeds = np.flatnonzero(digits == digit)[:PER_DIGIT]
        if len(seeds):
            surest.append(int(seeds[np.argmax(confidences[seeds])]))
    pairs = list(zip(surest[::2], surest[1::2], strict=False))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _walk(start: int, end: int, generate: Generate) -> Images:
    ends = noise_from_seeds([start, end])
    return generate(walk(ends, WALK_STEPS - 1, "slerp", loop=False)).reshape(WALK_STEPS, IMAGE_SIDE, IMAGE_SIDE)
