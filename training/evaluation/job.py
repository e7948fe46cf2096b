"""One evaluation of a source: what ``digitgan evaluate`` computes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.versions.model_card import read_card, verify, write_card
from training.bar import TaskBar
from training.data import Dataset, Images
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.evaluator import Evaluator, Measurement
from training.evaluation.score import score_figures
from training.evaluation.source import Source

SCORED: Final = 2000
"""Test images, and generated images, that the discriminator is measured on."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        content: what evaluation.json holds: ``images`` (how many), ``compared_with`` (which images are the
            reference), ``source``, ``classifier``, ``figures`` with their 95 % ``intervals``, the same of
            real images (``reference``, ``reference_intervals``), and the discriminator's ``score`` (null without a
            discriminator).
        images: uint8 [N, 28, 28], the generated images of the seeds 0 … N-1.
        measured: what was measured on them.
    """

    content: dict[str, Any]
    images: Images
    measured: Measurement


def evaluate(source: Source, dataset: Dataset, classifier: EvaluationClassifier, count: int) -> Evaluation:
    """Measures the images of the seeds 0 … count-1, and as many training images, against the test images.

    The same source, data and classifier always give the same figures. Shows a progress bar. Raises EvaluationError if
    there are too few images.
    """
    # Three searches among the training images take most of the time; generating the images takes most of the rest.
    size = min(count, len(dataset.x_train))
    with TaskBar("evaluating", 2 * count + size + len(dataset.x_test)) as bar:
        images = source.images(count, lambda more: bar.advance(more, "generating images"))
        evaluator = Evaluator(classifier, dataset.x_test, dataset.y_test, dataset.x_train)
        bar.advance(0, "nearest training images of test images")
        assert evaluator.reference_distance >= 0  # Computed here, where the bar names it.
        bar.advance(len(dataset.x_test))
        measured = evaluator.measure(images, advance=lambda more: bar.advance(more, "nearest training images"))
        real = evaluator.measure_real(count, advance=lambda more: bar.advance(more, "the same of training images"))
        score = _score(source, dataset, images)
    content = {
        "images": count,
        "compared_with": "test",
        "source": source.facts,
        "classifier": classifier.facts,
        "figures": measured.figures,
        "intervals": measured.intervals,
        "reference": real.figures,
        "reference_intervals": real.intervals,
        "score": score,
    }
    return Evaluation(content, images, measured)


def _score(source: Source, dataset: Dataset, images: Images) -> dict[str, Any] | None:
    """The discriminator's figures, on test images drawn from all of them: their first half is the easier one."""
    if source.score is None:
        return None
    count = min(SCORED, len(dataset.x_test))
    drawn = np.sort(np.random.default_rng(0).choice(len(dataset.x_test), count, replace=False))
    return score_figures(source.score, dataset.x_test[drawn], images[:SCORED])


def update_card(version_dir: Path, content: dict[str, Any]) -> bool:
    """Writes an evaluation, except the score, into a generator's model card. (The score is the discriminator's.)

    An evaluation of fewer images doesn't replace one of more.

    Returns:
        Whether the card has this evaluation now.

    Raises:
        serving.versions.model_card.CardError: there is no card, or it doesn't match the files beside it.
        OSError: the card can't be written.
    """
    verify(version_dir)
    card = read_card(version_dir)
    if card.get("evaluation", {}).get("images", 0) > content["images"]:
        return False
    evaluation = {key: value for key, value in content.items() if key != "score"}
    before = version_dir.stat()
    write_card(version_dir, {**{key: value for key, value in card.items() if key != "files"}, "evaluation": evaluation})
    # A model server loads a directory with another time again; the model is the same.
    os.utime(version_dir, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True
