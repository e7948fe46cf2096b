"""Which seeds count as which digit, and which are curated."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import INDEX_PAGE, INDEXED_SEEDS
from serving.noise import noise_from_seeds
from training.publish import seed_index
from training.publish.pages import paged
from training.publish.seed_index import SeedIndex


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


@pytest.fixture(scope="module")
def index() -> SeedIndex:
    return seed_index.build(seen, classify, score, seeds=5000)


def test_every_seed_is_looked_at(index: SeedIndex) -> None:
    images = seen(noise_from_seeds(range(5000)))
    np.testing.assert_array_equal(index.digits, classify(images).argmax(1))
    np.testing.assert_array_equal(index.confidences, classify(images).max(1))
    np.testing.assert_array_equal(index.logits, score(images))


def test_the_curated_are_sure_and_among_the_more_real_of_their_digit(index: SeedIndex) -> None:
    sure = index.confidences >= 0.99
    assert not index.curated[~sure].any()
    for digit in range(9):
        shown = sure & (index.digits == digit)
        floor = index.logit_floors[digit]
        assert floor is not None
        np.testing.assert_array_equal(index.curated[shown], index.logits[shown] >= floor)
        assert index.curated[shown].mean() == pytest.approx(0.75, abs=0.05)
    assert index.logit_floors[9] is None
    facts = index.facts()
    assert facts["digits"][9] == facts["curated"][9] == 0
    assert sum(facts["digits"]) == facts["seeds"] == 5000


def test_the_pages_are_the_index(index: SeedIndex) -> None:
    pages = paged(index.tables(), INDEXED_SEEDS, 5000)(np.array([1, 0], np.int64))
    assert pages[INDEXED_SEEDS].numpy().tolist() == [5000, 5000]
    np.testing.assert_array_equal(pages["digits"][1], index.digits[:INDEX_PAGE])
    np.testing.assert_array_equal(pages["logits"][0][: 5000 - INDEX_PAGE], index.logits[INDEX_PAGE:])
    assert (pages["digits"][0][5000 - INDEX_PAGE :].numpy() == 255).all()
