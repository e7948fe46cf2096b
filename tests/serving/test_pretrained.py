"""What ships is what was trained: whole, and as long as it says."""

import pytest

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, MODELS
from serving.versions.model_card import read_card, verify
from serving.versions.quality_gate import Thresholds, shortfalls
from tests.support.pretrained import pretrained
from training.config import DEFAULT_PRESET

RUN = {"training.images": {"min": 55_000}, "training.steps": {"min": 15_000}}
SHIPPED: dict[str, Thresholds] = {
    GENERATOR: {
        **RUN,
        "evaluation.images": {"min": 10_000},
        "evaluation.figures.frechet_distance": {"max": 0.16},
        "evaluation.figures.precision": {"min": 0.84},
        "evaluation.figures.recall": {"min": 0.84},
        "evaluation.figures.density": {"min": 0.893},
        "evaluation.figures.coverage": {"min": 0.923},
        "evaluation.figures.legible": {"min": 0.945},
        "seed_index.seeds": {"min": 65_536},
    },
    DISCRIMINATOR: {
        **RUN,
        "detector.test.auc": {"min": 0.99},
        "detector.test.expected_calibration_error": {"max": 0.015},
        **{f"detector.test.kinds.{kind}": {"min": 0.99} for kind in ("noise", "inverted", "shuffled", "blank")},
    },
    CLASSIFIER: {
        "training.images": {"min": 55_000},
        "test.images": {"min": 10_000},
        "test.accuracy": {"min": 0.994},
        "test.expected_calibration_error": {"max": 0.01},
    },
}
"""What the models are, and how good: bounds of figures in their cards."""


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card_which_says_how_good_they_are(name: str) -> None:
    version = pretrained(name)
    verify(version)
    card = read_card(version)
    assert shortfalls(card, SHIPPED[name]) == []
    if name != CLASSIFIER:
        assert card["training"]["preset"] == DEFAULT_PRESET
