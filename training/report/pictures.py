"""The pictures of a report: a few hundred digits, chosen from the thousands of an evaluation."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving import interpolation
from serving.contract import CLASSES, IMAGE_SIDE
from serving.noise import noise_from_seeds
from training.data import Images
from training.evaluation.figures import Measurement
from training.evaluation.statistics import nearest_images
from training.run.samples import png_of, sheet

PER_DIGIT: Final = 12
STEPS: Final = 12
COMPARED: Final = 10
NEIGHBOURS: Final = 3
LEAST_LEGIBLE: Final = 18

Generate = Callable[[NDArray[np.float32]], Images]


def choose(images: Images, measured: Measurement, training_images: Images, generate: Generate) -> dict[str, Any]:
    """Chooses the pictures from an evaluation of the seeds 0 … N-1. Every ``png`` is a data URI.

    - ``by_digit``: a column for each digit with the first images of it, and the digits that are ``absent``;
    - ``interpolations``: from one seed's noise to another's;
    - ``nearest``: of each digit the image nearest to any training image, then as many at random, with the nearest
      training images and their distances;
    - ``least_legible``: the images that the classifier is least sure of.
    """
    assert measured.to_training is not None, "a light measurement has no distances"
    digits, confidences = measured.probabilities.argmax(1), measured.probabilities.max(1)
    first_of_each = [np.flatnonzero(digits == digit)[:PER_DIGIT] for digit in range(CLASSES)]
    columns = np.zeros((PER_DIGIT, CLASSES, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    for digit, seeds in enumerate(first_of_each):
        columns[: len(seeds), digit] = images[seeds]
    surest = [int(seeds[np.argmax(confidences[seeds])]) for seeds in first_of_each if len(seeds)]
    compared = _compared(digits, measured.to_training)
    distances, neighbours = nearest_images(images[compared], training_images, NEIGHBOURS)

    def one(seed: int) -> dict[str, Any]:
        return {"seed": int(seed), "png": _png(images[seed][None], 1)}

    def between(start: int, end: int) -> Images:
        return generate(interpolation.path(noise_from_seeds([start, end]), STEPS - 1, "slerp", loop=False))

    return {
        "by_digit": {
            "png": _png(columns.reshape(-1, IMAGE_SIDE, IMAGE_SIDE), CLASSES),
            "absent": [digit for digit, seeds in enumerate(first_of_each) if not len(seeds)],
        },
        "interpolations": [
            {"start": start, "end": end, "png": _png(between(start, end), STEPS)}
            for start, end in zip(surest[::2], surest[1::2], strict=False)
        ],
        "nearest": [
            {
                **one(seed),
                "neighbours": _png(training_images[neighbours[row]], NEIGHBOURS),
                "distances": distances[row].tolist(),
            }
            for row, seed in enumerate(compared)
        ],
        "least_legible": [
            {**one(seed), "digit": int(digits[seed]), "confidence": float(confidences[seed])}
            for seed in np.argsort(confidences, kind="stable")[:LEAST_LEGIBLE]
        ],
    }


def _compared(digits: NDArray[np.int64], distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest of each digit, as the nearest of all are ones; the next nearest if digits are absent; then random."""
    order = np.argsort(distances, kind="stable")
    _, first = np.unique(digits[order], return_index=True)
    others = np.setdiff1d(np.arange(len(order)), first)
    nearest = order[np.concatenate([first, others[: COMPARED - len(first)]])]
    rest = np.setdiff1d(np.arange(len(digits)), nearest)
    drawn = np.random.default_rng(0).choice(rest, min(COMPARED, len(rest)), replace=False)
    return np.concatenate([nearest, np.sort(drawn)]).astype(np.int64)


def _png(digits: Images, columns: int) -> str:
    return png_uri(png_of(sheet(digits, columns)))


def png_uri(png: bytes) -> str:
    """Returns a PNG as a data URI."""
    return "data:image/png;base64," + b64encode(png).decode()
