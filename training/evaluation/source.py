"""The models that an evaluation measures: those of a run, or of a base directory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.contract import (
    DISCRIMINATOR,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGE_SIDE,
    IMAGES,
    LOGITS,
    NOISE,
    PROBABILITIES,
    SIGNATURE,
)
from serving.errors import UserError
from serving.noise import noise_from_seeds
from serving.storage import newest_version
from serving.versions.model_card import CardError, read_card
from training.config import CONFIG_FILE
from training.data import Images, in_batches

Generate = Callable[[NDArray[np.float32]], Images]
Score = Callable[[Images], tuple[NDArray[np.float32], NDArray[np.float32]]]

BATCH: Final = 256
MODELS: Final = "models"


class SourceError(UserError, ValueError):
    """There are no models to evaluate. The message names the directory and what it should hold."""


@dataclass(frozen=True)
class Source:
    """A generator to evaluate.

    Attributes:
        facts: ``kind`` ("run" or "models"), ``version``, ``preset`` and ``steps``; null for what the card lacks.
        generate: from noise float32 [N, 100] to images uint8 [N, 28, 28].
        score: from images uint8 [N, 28, 28] to logits and probabilities of being real, float32 [N] each; None where
            there is no discriminator.
        run: the run directory; None for a base directory of models.
        version_dir: the generator's version directory.
    """

    facts: dict[str, Any]
    generate: Generate
    score: Score | None
    run: Path | None
    version_dir: Path

    def images(self, count: int, advance: Callable[[int], None] = lambda _: None) -> Images:
        """Generates the images of the seeds 0 … count-1, uint8 [count, 28, 28].

        ``advance`` is called with the number of further images that are done.
        """
        parts = []
        for first in range(0, count, BATCH):
            parts.append(self.generate(noise_from_seeds(range(first, min(first + BATCH, count)))))
            advance(len(parts[-1]))
        return np.concatenate(parts)


def find_generator(path: Path) -> Path:
    """Returns the version directory of the newest generator of a run or of a base directory, or raises SourceError."""
    run = path if (path / CONFIG_FILE).is_file() else None
    version_dir = newest_version((path / MODELS if run else path) / GENERATOR)
    if version_dir is None and run:
        raise SourceError(f"{run} has no models yet; run: digitgan export {run}")
    if version_dir is None:
        raise SourceError(
            f"{path} is no run directory (it has no {CONFIG_FILE}) and no base directory of models (it has no "
            f"{GENERATOR}/<version>/saved_model.pb)"
        )
    return version_dir


def open_source(path: Path) -> Source:
    """Loads the newest generator and discriminator of a run or of a base directory, or raises SourceError."""
    import tensorflow as tf

    version_dir = find_generator(path)
    run = path if (path / CONFIG_FILE).is_file() else None
    generator = _load(version_dir)

    def generate(noise: NDArray[np.float32]) -> Images:
        images: Images = generator(**{NOISE: tf.constant(noise)})[IMAGES].numpy()
        return images.reshape(-1, IMAGE_SIDE, IMAGE_SIDE)

    discriminator_dir = newest_version(version_dir.parents[1] / DISCRIMINATOR)
    return Source(
        {"kind": "run" if run else "models", "version": int(version_dir.name), **_training_facts(version_dir)},
        generate,
        _score(discriminator_dir) if discriminator_dir else None,
        run,
        version_dir,
    )


def _load(version_dir: Path) -> Any:
    """Loads the serving signature of a SavedModel."""
    import tensorflow as tf

    try:
        saved = tf.saved_model.load(str(version_dir))
    except OSError as error:
        raise SourceError(f"{version_dir} holds no model that can be loaded: {error}") from error
    signature = saved.signatures[SIGNATURE]
    signature.kept_alive = saved  # A signature doesn't hold its model's variables.
    return signature


def _score(version_dir: Path) -> Score:
    import tensorflow as tf

    discriminator = _load(version_dir)

    def answer(images: Any) -> tuple[Any, Any]:
        outputs = discriminator(**{IMAGES: tf.constant(images)})
        return outputs[LOGITS], outputs[PROBABILITIES]

    def score(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, probabilities = in_batches(answer, images.reshape(-1, *IMAGE_SHAPE))
        return logits, probabilities

    return score


def _training_facts(version_dir: Path) -> dict[str, Any]:
    try:
        training = read_card(version_dir).get("training") or {}
    except CardError:
        training = {}
    return {"preset": training.get("preset"), "steps": training.get("steps")}
