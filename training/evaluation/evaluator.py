"""All figures of an evaluation, against one set of reference images."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from serving.errors import UserError
from training.data import Images
from training.evaluation import statistics
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.statistics import Advance, Gaussian, Manifold, Overlap, nearest_images, without

DUPLICATE_DISTANCE: Final = 0.8
"""Two images at most this far apart (Euclidean, on pixels from 0 to 1) count as duplicates. The two nearest of MNIST's
60,000 training images are 0.82 apart."""


class EvaluationError(UserError, ValueError):
    """There are too few images. The message says which."""


@dataclass(frozen=True)
class Measurement:
    """What was measured on some images.

    Attributes:
        figures: by name; floats, except ``class_shares`` (a list of ten floats).
        intervals: the ends of each figure's 95 % interval; empty after a light evaluation.
        digits: int64 [N], the most likely digit of each image.
        confidences: float32 [N], the probability of that digit.
        distances: float64 [N], each image's Euclidean distance to the nearest training image, on pixels from 0 to 1;
            None after a light evaluation.
    """

    figures: dict[str, Any]
    intervals: dict[str, list[Any]]
    digits: NDArray[np.int64]
    confidences: NDArray[np.float32]
    distances: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Sample:
    """What the figures of N images, compared with M reference images, are computed from: one row for each image."""

    features: NDArray[np.float32]
    kernel_distance: tuple[float, float]
    probabilities: NDArray[np.float32]
    overlap: Overlap
    duplicates: NDArray[np.bool_]
    distances: NDArray[np.float64] | None

    def without(self, group: int) -> "_Sample":
        """Leaves out a group of the images, and of the reference images where a figure is a share of those."""
        return _Sample(
            without(self.features, group),
            self.kernel_distance,
            without(self.probabilities, group),
            Overlap(*(without(getattr(self.overlap, field.name), group) for field in fields(Overlap))),
            without(self.duplicates, group),
            None if self.distances is None else without(self.distances, group),
        )


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
        distances = None
        if not light:
            rank = 2 if in_training else 1  # The nearest training image of a training image is itself.
            distances = nearest_images(images, self._training_images, rank, advance)[0][:, -1]
        sample = _Sample(
            features,
            statistics.kernel_distance(features, self._manifold.features),
            probabilities,
            Overlap.of(Manifold.of(features), self._manifold),
            nearest_images(images, images, 2)[0][:, 1] < DUPLICATE_DISTANCE,
            distances,
        )
        return Measurement(
            self._figures(sample),
            {} if light else self._intervals(sample),
            probabilities.argmax(1),
            probabilities.max(1),
            distances,
        )

    def _figures(self, sample: _Sample) -> dict[str, Any]:
        shares = statistics.class_shares(sample.probabilities.argmax(1))
        figures: dict[str, Any] = {
            "frechet_distance": statistics.frechet_distance(Gaussian.of(sample.features), self._gaussian),
            "kernel_distance": sample.kernel_distance[0],
            **sample.overlap.figures(),
            "digit_score": statistics.digit_score(sample.probabilities),
            "legible": statistics.legible_share(sample.probabilities),
            "class_shares": shares.tolist(),
            **({"class_kl": statistics.class_divergence(shares, self._shares)} if self._shares.all() else {}),
        }
        if sample.distances is not None:
            figures["nearest_distance"] = float(np.median(sample.distances))
            figures["nearest_distance_ratio"] = figures["nearest_distance"] / self.reference_distance
        return {**figures, "duplicates": float(sample.duplicates.mean())}

    def _intervals(self, sample: _Sample) -> dict[str, list[Any]]:
        """Computes each figure's 95 % interval, from the figures without each tenth of the images."""
        parts = [self._figures(sample.without(group)) for group in range(statistics.GROUPS)]
        distance, error = sample.kernel_distance  # It takes too long to be computed for each part.
        margin = float(student.ppf((1 + statistics.LEVEL) / 2, statistics.KERNEL_GROUPS - 1)) * error
        intervals = statistics.intervals(self._figures(sample), parts)
        return {**intervals, "kernel_distance": [distance - margin, distance + margin]}

    def measure_real(self, count: int, *, light: bool = False, advance: Advance = lambda _: None) -> Measurement:
        """Measures training images, drawn without replacement, in place of generated images.

        This is what real images get: no generator is expected to do better. ``count`` is limited to all of them.
        """
        size = min(count, len(self._training_images))
        drawn = np.sort(np.random.default_rng(0).choice(len(self._training_images), size, replace=False))
        return self.measure(self._training_images[drawn], light=light, in_training=True, advance=advance)


def _check_size(what: str, images: Images) -> None:
    if len(images) < statistics.MIN_IMAGES:
        raise EvaluationError(f"{what}: {len(images)} are too few; at least {statistics.MIN_IMAGES} are needed")
