"""Measures images against one set of reference images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import Images
from training.evaluation import statistics
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.figures import Measurement
from training.evaluation.statistics import Gaussian, Manifold, nearest_images


class Evaluator:
    """Measures images against a reference."""

    def __init__(
        self,
        classifier: EvaluationClassifier,
        reference_images: Images,
        reference_labels: NDArray[np.uint8],
        training_images: Images,
        *,
        light: bool = False,
    ) -> None:
        """Measures the reference: images that nothing was trained on. Raises UserError if it is too small.

        ``training_images`` are what the generator may have memorised. ``light`` leaves out the search for the nearest
        of them, which takes most of the time.
        """
        self._classifier = classifier
        self._training_images = training_images
        self._light = light
        features, _ = classifier.predict(reference_images)
        self._manifold = Manifold.of(features)
        nearest = self._to_training(reference_images)
        self._reference: dict[str, Any] = {
            "reference_features": Gaussian.of(features),
            "reference_shares": statistics.class_shares(reference_labels),
            "reference_to_training": None if nearest is None else float(np.median(nearest)),
        }

    def measure(self, images: Images, rank: int = 1) -> Measurement:
        """Measures images, uint8 [N, 28, 28], by their ``rank``-nearest training image. Raises UserError if too few."""
        features, probabilities = self._classifier.predict(images)
        return Measurement(
            features,
            probabilities,
            **statistics.overlap(Manifold.of(features), self._manifold),
            to_others=nearest_images(images, images, 2)[0][:, 1],
            to_training=self._to_training(images, rank),
            kernel_distance=statistics.kernel_distance(features, self._manifold.features),
            **self._reference,
        )

    def measure_real(self, count: int) -> Measurement:
        """Measures ``count`` training images, or all, in place of generated ones: no generator should do better."""
        size = min(count, len(self._training_images))
        drawn = np.sort(np.random.default_rng(0).choice(len(self._training_images), size, replace=False))
        return self.measure(self._training_images[drawn], rank=2)  # The nearest to each of these is itself.

    def _to_training(self, images: Images, rank: int = 1) -> NDArray[np.float64] | None:
        return None if self._light else nearest_images(images, self._training_images, rank)[0][:, -1]
