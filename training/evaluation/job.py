"""An evaluation from its source to what is told about it: what ``digitgan evaluate`` does."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.model_card import read_card, verify, write_card
from training.bar import TaskBar
from training.data import Dataset
from training.evaluation.evaluator import Evaluator, Measurement
from training.evaluation.features import Judge
from training.evaluation.sources import Source
from training.report import Pictures, choose
from training.score_evaluation import score_figures

SCORED: Final = 2000
"""Test images, and generated ones, that the discriminator is judged on."""
DECK_FILE: Final = "deck.json"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        content: what evaluation.json holds: ``images`` (how many), ``reference``, ``source``, ``classifier``,
            ``figures``, the same of the ``floor``, of the ``deck`` preset (with its ``steps``; null where none is
            known for so few steps) and the discriminator's ``score`` (null without one).
        pictures: the digits that a report shows.
    """

    content: dict[str, Any]
    pictures: Pictures


def evaluate(source: Source, dataset: Dataset, judge: Judge, count: int, deck: Path | None = None) -> Evaluation:
    """Measures the images of the seeds 0 … count-1 against the test images, and training images as the floor.

    The same source, data and classifier give the same figures each time. Shows a progress bar.

    Args:
        source: the generator.
        dataset: the test images are the reference; the training images are what may have been memorised.
        judge: the classifier.
        count: how many images.
        deck: the figures of the ``deck`` preset; None for the package's own.

    Raises:
        EvaluationError: there are too few images.
        SourceError: a gateway stopped answering.
    """
    # Three searches among the training images take most of the time, and making the images the next part.
    size = min(count, len(dataset.x_train))
    with TaskBar("evaluating", 2 * count + size + len(dataset.x_test)) as bar:
        images = source.images(count, lambda more: bar.advance(more, "making images"))
        evaluator = Evaluator(judge, dataset.x_test, dataset.y_test, dataset.x_train)
        bar.advance(0, "nearest training images of the test images")
        assert evaluator.reference_distance >= 0  # Measured here, so that the bar tells it.
        bar.advance(len(dataset.x_test))
        measured = evaluator.measure(images, advance=lambda more: bar.advance(more, "nearest training images"))
        floor = evaluator.floor(count, advance=lambda more: bar.advance(more, "the same of training images"))
        score = _score(source, dataset, images)
        pictures = _pictures(source, dataset, images, measured)
    content = {
        "images": count,
        "reference": "test",
        "source": source.facts,
        "classifier": judge.facts,
        "figures": measured.figures,
        "floor": floor.figures,
        "deck": deck_figures(source.facts["steps"], deck or Path(__file__).with_name(DECK_FILE)),
        "score": score,
    }
    return Evaluation(content, pictures)


def _score(source: Source, dataset: Dataset, images: Any) -> dict[str, Any] | None:
    """The discriminator's figures, on test images drawn from all of them: their first half is the easier one."""
    if source.score is None:
        return None
    count = min(SCORED, len(dataset.x_test))
    drawn = np.sort(np.random.default_rng(0).choice(len(dataset.x_test), count, replace=False))
    return score_figures(source.score, dataset.x_test[drawn], images[:SCORED])


def _pictures(source: Source, dataset: Dataset, images: Any, measured: Measurement) -> Pictures:
    assert measured.distances is not None
    return choose(images, measured.digits, measured.confidences, measured.distances, dataset.x_train, source.generate)


def deck_figures(steps: int | None, path: Path) -> dict[str, Any] | None:
    """The figures of the ``deck`` preset at the greatest number of steps, among those measured, up to ``steps``.

    Args:
        steps: steps of the run that they are to stand beside, or None if that isn't known.
        path: a JSON file, {"steps": {"1170": {figures}, …}}.

    Returns:
        The figures and their ``steps``, or None where there are none.
    """
    if steps is None or not path.exists():
        return None
    table: dict[str, Any] = json.loads(path.read_text("utf-8"))["steps"]
    known = [int(key) for key in table if int(key) <= steps]
    return {**table[str(max(known))], "steps": max(known)} if known else None


def tell_card(version_dir: Path, evaluation: Evaluation) -> bool:
    """Puts an evaluation into a generator's model card, less the score, which is the discriminator's.

    An evaluation of fewer images doesn't take the place of one of more.

    Returns:
        Whether the card tells this evaluation now.

    Raises:
        serving.model_card.CardError: there is no card, or it belies the files beside it.
        OSError: the card can't be written.
    """
    verify(version_dir)
    card = read_card(version_dir)
    told = {key: value for key, value in evaluation.content.items() if key != "score"}
    if card.get("evaluation", {}).get("images", 0) > told["images"]:
        return False
    before = version_dir.stat()
    write_card(version_dir, {**{key: value for key, value in card.items() if key != "files"}, "evaluation": told})
    # A running model server takes a changed directory for another version in its place; the model is the same.
    os.utime(version_dir, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True
