"""One evaluation of a source: what ``digitgan evaluate`` computes."""

import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.versions.model_card import read_card, verify, write_card
from training.bar import announce
from training.data import Dataset, Images
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.evaluator import Evaluator
from training.evaluation.figures import Measurement
from training.evaluation.score import score_figures
from training.evaluation.source import Source

SCORED: Final = 2000
"""Test images, and generated images, that the discriminator is measured on."""


def evaluate(
    source: Source, dataset: Dataset, classifier: EvaluationClassifier, count: int
) -> tuple[dict[str, Any], Images, Measurement]:
    """Measures the images of the seeds 0 … count-1, and samples of as many training images, against the test images.

    Returns what evaluation.json holds, the images, and what was measured on them. Raises UserError if they are too few.
    """
    announce("Generating images")
    images = source.images(count)
    announce("Measuring test images")
    evaluator = Evaluator(classifier, dataset.x_test, dataset.y_test, dataset.x_train)
    announce("Measuring the generated images")
    measured = evaluator.measure(images)
    announce("Measuring training images, for the reference")
    real = evaluator.measure_real(count)
    score = None
    if source.has_score:
        # Test images drawn from all of them: their first half is the easier one.
        found = len(dataset.x_test)
        drawn = np.random.default_rng(0).choice(found, min(SCORED, found), replace=False)
        score = score_figures(source.score, dataset.x_test[np.sort(drawn)], images[:SCORED])
    return (
        {
            "images": count,
            "compared_with": "test",
            "source": source.facts,
            "classifier": classifier.facts,
            "figures": measured.figures,
            "intervals": measured.intervals,
            "reference": real["figures"],
            "reference_intervals": real["intervals"],
            "score": score,
        },
        images,
        measured,
    )


def update_card(version_dir: Path, content: dict[str, Any]) -> bool:
    """Writes an evaluation into a generator's model card, except the score, which is the discriminator's.

    Returns False if the card has an evaluation of more images, which stays. Raises CardError if there is no card, or if
    it doesn't match the files beside it, and OSError if it can't be written.
    """
    verify(version_dir)
    card = read_card(version_dir)
    if card.get("evaluation", {}).get("images", 0) > content["images"]:
        return False
    del card["files"]
    card["evaluation"] = {key: value for key, value in content.items() if key != "score"}
    before = version_dir.stat()
    write_card(version_dir, card)
    # A model server loads a directory with another time again; the model is the same.
    os.utime(version_dir, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True
