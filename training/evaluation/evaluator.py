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
        """Measures the reference. Raises UserError if it is too small.

        Args:
            classifier: gives the features and the digits.
            reference_images: uint8 [N, 28, 28], images that nothing was trained on.
            reference_labels: uint8 [N]. If one of the ten digits is missing, the figures lack ``class_kl``.
            training_images: uint8 [M, 28, 28], what the generator may have memorised.
            light: leaves out the nearest training images, which take most of the time, and their figures.
        """
        self._classifier = classifier
        self._training_images = training_images
        self._light = light
        features, _ = classifier.predict(reference_images)
        self._manifold = Manifold.of(features)
        nearest = None if light else nearest_images(reference_images, training_images)[0]
        self._reference: dict[str, Any] = {
            "reference_features": Gaussian.of(features),
            "reference_shares": tuple(statistics.class_shares(reference_labels)),
            "reference_to_training": None if nearest is None else float(np.median(nearest)),
        }

    def measure(self, images: Images, *, in_training: bool = False) -> Measurement:
        """Measures images, uint8 [N, 28, 28]. Raises UserError if there are too few.

        ``in_training``: they are training images themselves, and each one's nearest other training image counts.
        """
        features, probabilities = self._classifier.predict(images)
        rank = 2 if in_training else 1  # The nearest training image of a training image is itself.
        return Measurement(
            features,
            probabilities,
            **statistics.overlap(Manifold.of(features), self._manifold),
            to_others=nearest_images(images, images, 2)[0][:, 1],
            to_training=None if self._light else nearest_images(images, self._training_images, rank)[0][:, -1],
            kernel_distance=statistics.kernel_distance(features, self._manifold.features),
            **self._reference,
        )

    def measure_real(self, count: int) -> Measurement:
        """Measures training images, drawn without replacement, in place of generated images.

        This is what real images get: no generator is expected to do better. ``count`` is limited to all of them.
        """
        size = min(count, len(self._training_images))
        drawn = np.sort(np.random.default_rng(0).choice(len(self._training_images), size, replace=False))
        return self.measure(self._training_images[drawn], in_training=True)
