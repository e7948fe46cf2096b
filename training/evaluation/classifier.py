"""The digit classifier that gives an evaluation its features and labels."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import CLASSIFIER, FEATURES, IMAGE_SHAPE, IMAGES, PROBABILITIES, SIGNATURE
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.storage import newest_version
from serving.versions.model_card import find_card
from training.data import in_batches


class EvaluationClassifier:
    """A classifier's SavedModel. ``facts`` are what evaluation.json says of it."""

    def __init__(self, version_dir: Path) -> None:
        """Loads a version. Raises UserError if it can't be loaded or has no features."""
        try:
            self._saved = tf.saved_model.load(str(version_dir))
            features, labels = (self._saved.signatures[name] for name in (FEATURES, SIGNATURE))
        except (OSError, KeyError) as error:
            raise UserError(
                f"{version_dir} holds no classifier with features ({error}); digitgan train-classifier makes one"
            ) from error

        # One graph for both, so that TensorFlow computes the features once.
        @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)])  # type: ignore[untyped-decorator]
        def predict(images: Any) -> Any:
            return features(images)[FEATURES], labels(images)[PROBABILITIES]

        self._predict = predict
        self.version_dir = version_dir
        card = find_card(version_dir)
        self.facts = {
            "version": card.get("version"),
            "accuracy": card.get("test", {}).get("accuracy"),
            "sha256": card.get("files", {}).get("saved_model.pb", {}).get("sha256"),
        }

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Computes features, float32 [N, 128], and probabilities, float32 [N, 10], of images, uint8 [N, 28, 28]."""
        features, probabilities = in_batches(self._predict, images.reshape(-1, *IMAGE_SHAPE))
        return features, probabilities

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes the probabilities alone."""
        return self.predict(images)[1]


def newest_classifier(models: Path = MODELS_DIR) -> EvaluationClassifier:
    """Returns the newest classifier in a base directory, which is loaded once. Raises UserError if there is none."""
    version_dir = newest_version(models / CLASSIFIER)
    if version_dir is None:
        raise UserError(
            f"{models / CLASSIFIER} holds no version of a classifier; run digitgan train-classifier --models {models}"
        )
    return _load(version_dir)


_load = lru_cache(maxsize=2)(EvaluationClassifier)
