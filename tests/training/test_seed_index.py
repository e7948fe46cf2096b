"""Which seeds count as which digit, and which are curated."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import CONFIDENCES, CURATED, DIGITS, LOGITS
from serving.noise import noise_from_seeds
from training.publish import seed_index

SEEDS = 5000


def seen(noise: NDArray[Any]) -> NDArray[np.uint8]:
    """An image that shows its noise's first three numbers: digit, how clear it is, how real it looks."""
    images = np.zeros((len(noise), 28, 28, 1), np.uint8)
    images[:, 0, :3, 0] = np.clip(np.abs(noise[:, :3]) * 100, 0, 255)
    return images


def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    confidence = np.where(images[:, 0, 1, 0] > 50, 0.995, 0.91).astype(np.float32)
    probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(len(images)), images[:, 0, 0, 0] % 9] = confidence  # Never a 9.
    return np.asarray(probabilities)


def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images[:, 0, 2, 0].astype(np.float32)


def test_every_seed_is_labelled_and_the_curated_are_sure_and_the_more_real_of_their_digit() -> None:
    index, facts = seed_index.build(seen, classify, score, SEEDS)
    images = seen(noise_from_seeds(range(SEEDS)))
    np.testing.assert_array_equal(index[DIGITS], classify(images).argmax(1))
    np.testing.assert_array_equal(index[CONFIDENCES], classify(images).max(1))
    np.testing.assert_array_equal(index[LOGITS], score(images))
    sure = index[CONFIDENCES] >= 0.99
    assert not index[CURATED][~sure].any()
    for digit in range(9):
        shown = sure & (index[DIGITS] == digit)
        np.testing.assert_array_equal(index[CURATED][shown] == 1, index[LOGITS][shown] >= facts["logit_floors"][digit])
        assert index[CURATED][shown].mean() == pytest.approx(0.75, abs=0.05)
    assert facts["logit_floors"][9] is None
    assert facts["digits"][9] == facts["curated"][9] == 0
    assert sum(facts["digits"]) == facts["seeds"] == SEEDS
    assert sum(facts["curated"]) == index[CURATED].sum()
