"""All figures of an evaluation, against one set of reference images."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation import statistics
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.statistics import Advance, Gaussian, Images, Manifold, Overlap, nearest_images

DUPLICATE_DISTANCE: Final = 0.8
"""Two images at most this far apart (Euclidean, on pixels from 0 to 1) count as duplicates. The two nearest of MNIST's
60,000 training images are 0.82 apart."""


class EvaluationError(ValueError):
    """There are too few images. The message says which."""


@dataclass(frozen=True)
class Measurement:
    """What was measured on some images.

    Attributes:
        figures: by name; floats, except ``class_shares`` (a list of ten floats).
        digits: int64 [N], the most likely digit of each image.
        confidences: float32 [N], the probability of that digit.
        distances: float64 [N], each image's Euclidean distance to the nearest training image, on pixels from 0 to 1;
            None after a light evaluation.
    """

    figures: dict[str, Any]
    digits: NDArray[np.int64]
    confidences: NDArray[np.float32]
    distances: NDArray[np.float64] | None


class Evaluator:
    """Measures images against a reference."""

    def __init__(
        self,
        classifier: EvaluationClassifier,
        reference_images: Images,
        reference_labels: NDArray[np.uint8],
        training_images: Images,
    ) -> None:
        """Measures the reference.

        Args:
            classifier: gives the features and the digits.
            reference_images: uint8 [N, 28, 28], images that nothing was trained on.
            reference_labels: uint8 [N]. If one of the ten digits is missing, the figures lack ``class_kl``.
            training_images: uint8 [M, 28, 28], what the generator may have memorised.

        Raises:
            EvaluationError: the reference is too small.
        """
        _check_size("reference images", reference_images)
        self._classifier = classifier
        self._training_images = training_images
        self._reference_images = reference_images
        self._shares = statistics.class_shares(reference_labels)
        features, _ = classifier.predict(reference_images)
        self._gaussian = Gaussian.of(features)
        self._manifold = Manifold.of(features)

    @cached_property
    def reference_distance(self) -> float:
        """The reference images' own median distance to the nearest training image."""
        return float(np.median(nearest_images(self._reference_images, self._training_images)[0]))

    def measure(
        self, images: Images, *, light: bool = False, in_training: bool = False, advance: Advance = lambda _: None
    ) -> Measurement:
        """Measures images.

        Args:
            images: uint8 [N, 28, 28].
            light: leaves out the nearest training images, which take most of the time, and their two figures.
            in_training: the images are training images themselves: each one's nearest other training image counts.
            advance: shows the progress of the search for the nearest training images.

        Raises:
            EvaluationError: there are too few images.
        """
        _check_size("images", images)
        features, probabilities = self._classifier.predict(images)
        digits = probabilities.argmax(1)
        shares = statistics.class_shares(digits)
        figures: dict[str, Any] = {
            "frechet_distance": statistics.frechet_distance(Gaussian.of(features), self._gaussian),
            "kernel_distance": statistics.kernel_distance(features, self._manifold.features),
            **Overlap.of(Manifold.of(features), self._manifold).figures(),
            "digit_score": statistics.digit_score(probabilities),
            "legible": statistics.legible_share(probabilities),
            "class_shares": shares.tolist(),
            **({"class_kl": statistics.class_divergence(shares, self._shares)} if self._shares.all() else {}),
        }
        distances = None
        if not light:
            rank = 2 if in_training else 1  # The nearest training image of a training image is itself.
            distances = nearest_images(images, self._training_images, rank, advance)[0][:, -1]
            figures["nearest_distance"] = float(np.median(distances))
            figures["nearest_distance_ratio"] = figures["nearest_distance"] / self.reference_distance
        others = nearest_images(images, images, 2)[0][:, 1]
        figures["duplicates"] = float((others < DUPLICATE_DISTANCE).mean())
        return Measurement(figures, digits, probabilities.max(1), distances)

    def measure_real(self, count: int, *, light: bool = False, advance: Advance = lambda _: None) -> Measurement:
        """Measures training images, drawn without replacement, in place of generated images.

        This is what real images get: no generator is expected to do better.

        Args:
            count: how many; all of them where there are fewer.
            light: as for :meth:`measure`.
            advance: as for :meth:`measure`.
        """
        size = min(count, len(self._training_images))
        drawn = np.sort(np.random.default_rng(0).choice(len(self._training_images), size, replace=False))
        return self.measure(self._training_images[drawn], light=light, in_training=True, advance=advance)


def _check_size(what: str, images: Images) -> None:
    if len(images) < statistics.MIN_IMAGES:
        raise EvaluationError(f"{what}: {len(images)} are too few; at least {statistics.MIN_IMAGES} are needed")
