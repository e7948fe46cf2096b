"""The classifier as the evaluation's eye."""

from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import CLASSIFIER, FEATURES, IMAGE_SHAPE, IMAGES, PROBABILITIES, SIGNATURE
from serving.model_card import CardError, read_card
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions

BATCH: Final = 500


class JudgeError(ValueError):
    """There is no classifier where one is looked for. The message names the place."""


class Judge:
    """A classifier's SavedModel, loaded: what the evaluation sees of an image, and reads in it.

    Attributes:
        facts: what an evaluation tells about it: ``version``, ``accuracy`` on the test images, and the model's
            ``sha256``; the last two are null where its card doesn't say.
    """

    def __init__(self, version_dir: Path) -> None:
        """Loads ``version_dir``/saved_model.pb. Raises JudgeError where there is none, or it has no features."""
        try:
            self._saved = tf.saved_model.load(str(version_dir))
        except OSError as error:
            raise JudgeError(f"{version_dir} holds no classifier: {error}") from error
        signatures = self._saved.signatures
        if missing := [name for name in (SIGNATURE, FEATURES) if name not in signatures]:
            raise JudgeError(
                f"{version_dir} has no signature {' and '.join(missing)}; digitgan train-classifier makes one that has"
            )
        read, see = signatures[SIGNATURE], signatures[FEATURES]

        # In one graph, whose optimiser finds that the two compute the same features.
        @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)])  # type: ignore[untyped-decorator]
        def look(images: Any) -> Any:
            return see(images)[FEATURES], read(images)[PROBABILITIES]

        self._look = look
        self.facts = _facts(version_dir)

    @classmethod
    def newest(cls, models: Path = MODELS_DIR) -> Self:
        """Loads the newest classifier below a base directory of models, by default the package's own.

        Raises JudgeError where there is none.
        """
        directory = models / CLASSIFIER
        found = find_versions(directory) if directory.is_dir() else {}
        if not found:
            raise JudgeError(
                f"{directory} holds no version of a classifier: digitgan train-classifier --models {models} makes one"
            )
        return cls(found[max(found)].path)

    def look(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Looks at images.

        Args:
            images: uint8 [N, 28, 28], N at least 1.

        Returns:
            The features, float32 [N, 128], and the probabilities of the ten digits, float32 [N, 10].
        """
        shaped = images.reshape(-1, *IMAGE_SHAPE)
        parts = [self._look(tf.constant(shaped[k : k + BATCH])) for k in range(0, len(shaped), BATCH)]
        features, probabilities = (np.concatenate([part.numpy() for part in each]) for each in zip(*parts, strict=True))
        return features, probabilities


def _facts(version_dir: Path) -> dict[str, Any]:
    try:
        card = read_card(version_dir)
    except CardError:
        card = {}
    return {
        "version": card.get("version"),
        "accuracy": card.get("test", {}).get("accuracy"),
        "sha256": card.get("files", {}).get("saved_model.pb", {}).get("sha256"),
    }
