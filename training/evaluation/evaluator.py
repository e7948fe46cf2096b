"""All figures of an evaluation, against one reference that is measured once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.contract import CLASSES
from training.evaluation import statistics
from training.evaluation.distances import nearest_images
from training.evaluation.features import Judge

Images = NDArray[np.uint8]
Advance = Callable[[int], None]
"""Told now and then for how many more images the search for neighbours is done."""

DUPLICATE_DISTANCE: Final = 0.8
"""Images nearer than this (Euclidean, on pixels from 0 to 1) count as the same one: no two of MNIST's 60,000 training
images are so near to each other; the nearest two are 0.82 apart."""


class EvaluationError(ValueError):
    """There is too little to evaluate, or to evaluate against. The message says what is missing."""


@dataclass(frozen=True)
class Measurement:
    """What was found about some images.

    Attributes:
        figures: the figures by name, in the order in which they are told; floats, but for ``class_shares`` (a list
            of ten).
        digits: int64 [N], the digit that each image reads as.
        confidences: float32 [N], the probability of that digit.
        distances: float64 [N], each image's Euclidean distance to the nearest training image, on pixels from 0 to 1;
            None after a light evaluation.
    """

    figures: dict[str, Any]
    digits: NDArray[np.int64]
    confidences: NDArray[np.float32]
    distances: NDArray[np.float64] | None


class Evaluator:
    """Measures images against a reference.

    Attributes:
        judge: the classifier that looks at the images.
        training_images: uint8 [M, 28, 28], what may have been memorised.
    """

    def __init__(
        self, judge: Judge, reference_images: Images, reference_labels: NDArray[np.uint8], training_images: Images
    ) -> None:
        """Measures the reference.

        Args:
            judge: looks at the images.
            reference_images: uint8 [N, 28, 28], that nothing was trained on.
            reference_labels: uint8 [N], every digit among them.
            training_images: uint8 [M, 28, 28].

        Raises:
            EvaluationError: the reference is too small, or lacks a digit.
        """
        _enough("reference images", reference_images)
        if missing := sorted(set(range(CLASSES)) - set(np.unique(reference_labels).tolist())):
            raise EvaluationError(f"there is no {missing[0]} among the {len(reference_images)} reference images")
        self.judge = judge
        self.training_images = training_images
        self._reference_images = reference_images
        self._shares = statistics.class_shares(reference_labels)
        features, _ = judge.look(reference_images)
        self._gaussian = statistics.Gaussian.of(features)
        self._manifold = statistics.Manifold.of(features)

    @cached_property
    def reference_distance(self) -> float:
        """The reference images' own median distance to the nearest training image."""
        return float(np.median(nearest_images(self._reference_images, self.training_images)))

    def figures(self, images: Images, *, light: bool = False) -> dict[str, Any]:
        """The figures of :meth:`measure` alone."""
        return self.measure(images, light=light).figures

    def measure(
        self,
        images: Images,
        *,
        light: bool = False,
        excluded: NDArray[np.integer[Any]] | None = None,
        advance: Advance = lambda _: None,
    ) -> Measurement:
        """Measures images.

        Args:
            images: uint8 [N, 28, 28].
            light: leave out the search for the nearest training images, which takes most of the time, and its two
                figures.
            excluded: for each image the training image that it is itself; integers [N].
            advance: told how far the search is.

        Raises:
            EvaluationError: there are too few images.
        """
        _enough("images", images)
        features, probabilities = self.judge.look(images)
        digits = probabilities.argmax(1)
        shares = statistics.class_shares(digits)
        distance, error = statistics.kernel_distance(features, self._manifold.features)
        figures: dict[str, Any] = {
            "frechet_distance": statistics.frechet_distance(statistics.Gaussian.of(features), self._gaussian),
            "kernel_distance": distance,
            "kernel_distance_error": error,
            **statistics.overlap(statistics.Manifold.of(features), self._manifold),
            "digit_score": statistics.digit_score(probabilities),
            "legible": statistics.legible_share(probabilities),
            "class_shares": shares.tolist(),
            "class_kl": statistics.class_divergence(shares, self._shares),
        }
        distances = None
        if not light:
            distances = nearest_images(images, self.training_images, excluded, advance)
            figures["nearest_distance"] = float(np.median(distances))
            figures["nearest_distance_ratio"] = figures["nearest_distance"] / self.reference_distance
        others = nearest_images(images, images, np.arange(len(images)))
        figures["duplicates"] = float((others < DUPLICATE_DISTANCE).mean())
        return Measurement(figures, digits, probabilities.max(1), distances)

    def floor(self, count: int, *, seed: int = 0, advance: Advance = lambda _: None) -> Measurement:
        """Measures training images, drawn without replacement, as if they had been generated.

        No generator can be expected to do better. A training image isn't its own neighbour.

        Args:
            count: how many; all of them where there are fewer.
            seed: decides which.
            advance: told how far the search for neighbours is.
        """
        size = min(count, len(self.training_images))
        drawn = np.sort(np.random.default_rng(seed).choice(len(self.training_images), size, replace=False))
        return self.measure(self.training_images[drawn], excluded=drawn, advance=advance)


def _enough(what: str, images: Images) -> None:
    if len(images) < statistics.LEAST_IMAGES:
        raise EvaluationError(f"{what}: {len(images)} are too few, {statistics.LEAST_IMAGES} are needed")
