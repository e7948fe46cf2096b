"""Measures images against one set of reference images."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data import Images
from training.evaluation import statistics
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.figures import Measurement, mean_of
from training.evaluation.statistics import Gaussian, Manifold, nearest_images

REFERENCE_SAMPLES: Final = 5
"""A reference is the mean of so many samples of training images, or of fewer if there are not enough images."""


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
        """Measures images, uint8 [N, 28, 28]. ``rank``: to which nearest training image distances are; 0 for none.

        Raises UserError if they are too few.
        """
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

    def measure_real(self, count: int, samples: int = REFERENCE_SAMPLES) -> dict[str, dict[str, Any]]:
        """Measures training images in place of generated ones: no generator should do better.

        Returns ``figures`` and ``intervals``, each the mean over at most ``samples`` disjoint samples of ``count``
        images: one sample can differ from the others by chance. Only the first sample has distances to training images,
        because these take the longest.
        """
        images = self._training_images
        size = min(count, len(images))
        rows = np.random.default_rng(0).permutation(len(images))[: len(images) // size * size].reshape(-1, size)
        # The nearest training image of a training image is itself.
        found = [self.measure(images[each], rank=0 if k else 2) for k, each in enumerate(rows[:samples])]
        return {part: mean_of([getattr(each, part) for each in found]) for part in ("figures", "intervals")}

    def _to_training(self, images: Images, rank: int = 1) -> NDArray[np.float64] | None:
        return None if self._light or not rank else nearest_images(images, self._training_images, rank)[0][:, -1]
