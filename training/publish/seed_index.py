"""The seed index: labels and scores of the first seeds' digits, so that a request for sevens costs no more."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving import contract
from serving.contract import CLASSES
from serving.noise import noise_from_seeds
from training.bar import task_bar

SEEDS: Final = 65_536
CONFIDENCE_FLOOR: Final = 0.99
LOGIT_QUANTILE: Final = 0.25
"""The share of the digits that the classifier is sure of, but whose logit is too low for the curated ones."""
_BATCH: Final = 256

Look = Callable[[NDArray[Any]], NDArray[Any]]


def build(
    generate: Look, classify: Look, score: Look, seeds: int = SEEDS
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Labels and scores the digit of every seed from 0 up to ``seeds``, with a progress bar.

    A seed is curated if the classifier is sure enough, and if the discriminator's logit is among the upper three
    quarters of those of the same digit that the classifier is sure of. (Some digits have higher logits than others.)

    ``generate`` makes pixels, as they are served, from noise; ``classify`` makes probabilities of them, ``score`` raw
    logits. Returns the columns of the index, by the contract's names, and what the model card says. There the logit's
    floor is null for a digit that no seed shows with enough confidence.
    """
    found = []
    with task_bar("seed index", seeds) as advance:
        for first in range(0, seeds, _BATCH):
            # Full batches only: a row is computed to the same bits in batches of 1, 2, 4 … 256, not in any other.
            images = generate(noise_from_seeds(range(first, first + _BATCH)))
            found.append((classify(images), score(images)))
            advance(min(_BATCH, seeds - first), "")
    probabilities, logits = (np.concatenate(each)[:seeds] for each in zip(*found, strict=True))
    digits, confidences = probabilities.argmax(1).astype(np.uint8), probabilities.max(1)
    sure = confidences >= CONFIDENCE_FLOOR
    floors = [
        float(np.quantile(logits[shown], LOGIT_QUANTILE)) if (shown := sure & (digits == digit)).any() else None
        for digit in range(CLASSES)
    ]
    curated = sure & (logits >= np.array(floors, np.float64)[digits])  # None becomes NaN.
    columns = {
        contract.DIGITS: digits,
        contract.CONFIDENCES: confidences,
        contract.LOGITS: logits,
        contract.CURATED: curated.astype(np.uint8),
    }
    return columns, {
        "seeds": seeds,
        "confidence_floor": CONFIDENCE_FLOOR,
        "logit_floors": floors,
        "digits": np.bincount(digits, minlength=CLASSES).tolist(),
        "curated": np.bincount(digits[curated], minlength=CLASSES).tolist(),
    }
