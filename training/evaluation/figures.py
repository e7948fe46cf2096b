"""The figures of an evaluation: each function computes one, and its docstring is what the report says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

from training.evaluation import statistics
from training.evaluation.statistics import Gaussian

DUPLICATE_DISTANCE: Final = 0.8
"""Two images at most this far apart (Euclidean, on pixels from 0 to 1) count as duplicates. The two nearest of MNIST's
60,000 training images are 0.82 apart."""


@dataclass(frozen=True)
class Measurement:
    """What the figures of N images, compared with M reference images, are computed from.

    ``to_others`` and ``to_training`` [N] are distances to the nearest other image and training image;
    ``reference_to_training`` is the reference images' median of the latter. A light evaluation has none of these two.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    precise: NDArray[np.bool_]  # These four are what statistics.overlap gives.
    recalled: NDArray[np.bool_]
    balls: NDArray[np.int64]
    covered: NDArray[np.bool_]
    to_others: NDArray[np.float64]
    to_training: NDArray[np.float64] | None
    kernel_distance: tuple[float, float]  # With its standard error.
    reference_features: Gaussian
    reference_shares: list[float]  # Of each digit.
    reference_to_training: float | None

    @cached_property
    def figures(self) -> dict[str, Any]:
        """All figures that there is the data for: floats, except ``class_shares`` (a list of ten floats)."""
        found = {each.key: each.compute(self) for each in MEASURES}
        return {key: figure for key, figure in found.items() if figure is not None}

    @cached_property
    def intervals(self) -> dict[str, list[Any]]:
        """The ends of each figure's 95 % interval, from the figures without each tenth of the images."""
        parts = [self._without(group).figures for group in range(statistics.GROUPS)]
        distance, error = self.kernel_distance  # It takes too long to be computed for each part.
        margin = statistics.half_width(statistics.KERNEL_GROUPS - 1) * error
        return {**statistics.intervals(self.figures, parts), "kernel_distance": [distance - margin, distance + margin]}

    def _without(self, group: int) -> Self:
        """Leaves out a group of the images, and of the reference images where a figure is a share of those."""
        kept: dict[str, Any] = {
            name: statistics.without(rows, group) for name, rows in vars(self).items() if isinstance(rows, np.ndarray)
        }
        return replace(self, **kept)


def mean_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of the figures, or of the intervals' ends, of measurements; each over those that have it."""
    return {key: np.mean([each[key] for each in found if key in each], axis=0).tolist() for key in found[0]}


Compute = Callable[[Measurement], float | list[float] | None]  # None where the measurement lacks what it needs.


@dataclass
class Measure:
    """A figure of the report, ``scale`` times what the decorated function computes, formatted by ``form``.

    ``at_least`` and ``at_most`` are the target, as factors of the reference's figure.
    """

    name: str
    form: str = "{:.3f}"
    scale: float = 1
    at_least: float | None = None
    at_most: float | None = None
    compute: Compute = field(init=False)
    key: str = field(init=False)  # Its name in evaluation.json.
    how: str = field(init=False)  # How it is computed, with the source.

    def __call__(self, compute: Compute) -> Compute:
        self.compute, self.key = compute, compute.__name__
        self.how = " ".join((compute.__doc__ or "").split())
        MEASURES.append(self)
        return compute


MEASURES: Final[list[Measure]] = []
"""All of them, as evaluation.json and the report list them."""


@Measure("Fréchet distance", "{:.2f}", at_most=2.5)
def frechet_distance(measured: Measurement) -> float:
    """The distance of two normal distributions fitted to the features of generated and of real digits: how far apart
    their means and covariances are (Heusel et al. 2017)."""
    return statistics.frechet_distance(Gaussian.of(measured.features), measured.reference_features)


@Measure("Kernel distance × 1,000", scale=1000)
def kernel_distance(measured: Measurement) -> float:
    """The squared maximum mean discrepancy of the features under a cubic kernel, without bias (Bińkowski et al.
    2018)."""
    return measured.kernel_distance[0]


@Measure("Precision", at_least=0.9)
def precision(measured: Measurement) -> float:
    """The share of generated digits that are within the distance of a real digit to its third neighbour (Kynkäänniemi
    et al. 2019)."""
    return float(measured.precise.mean())


@Measure("Recall", at_least=0.9)
def recall(measured: Measurement) -> float:
    """The share of real digits that are within the distance of a generated digit to its third neighbour (Kynkäänniemi
    et al. 2019)."""
    return float(measured.recalled.mean())


@Measure("Density", at_least=0.9)
def density(measured: Measurement) -> float:
    """How many real digits have a generated digit within the distance to their fifth neighbour, counted over the
    generated digits and divided by five; it can exceed 1 (Naeem et al. 2020)."""
    return float(measured.balls.mean() / statistics.DENSITY_NEIGHBOURS)


@Measure("Coverage", at_least=0.9)
def coverage(measured: Measurement) -> float:
    """The share of real digits with a generated digit within the distance to their fifth neighbour (Naeem et al.
    2020)."""
    return float(measured.covered.mean())


@Measure("MNIST score")
def digit_score(measured: Measurement) -> float:
    """The Inception score's formula with the digit classifier: high if each digit is classified with confidence and
    all ten occur; 10 is the maximum (Salimans et al. 2016)."""
    return statistics.digit_score(measured.probabilities)


@Measure("Legible digits", "{:.1f} %", scale=100, at_least=0.95)
def legible(measured: Measurement) -> float:
    """The share of digits that the classifier recognises with a probability of at least 0.99."""
    return statistics.legible_share(measured.probabilities)


@Measure("Share of each digit", "{:.1f} %", scale=100, at_least=0.8, at_most=1.2)
def class_shares(measured: Measurement) -> list[float]:
    """The shares of the images that are classified as 0, as 1, and so on: the least and the greatest."""
    return statistics.class_shares(measured.probabilities.argmax(1))


@Measure("Imbalance", "{:.4f}")
def class_kl(measured: Measurement) -> float | None:
    """The Kullback-Leibler divergence of those shares from the real digits' shares, in nats; 0 if they are equal
    (Kullback & Leibler 1951)."""
    return float(entropy(class_shares(measured), measured.reference_shares)) if all(measured.reference_shares) else None


@Measure("Distance to training image", "{:.2f}")
def nearest_distance(measured: Measurement) -> float | None:
    """The median distance of a digit to the nearest training image: Euclidean, on pixels from 0 to 1."""
    return None if measured.to_training is None else float(np.median(measured.to_training))


@Measure("The same over test images'", at_least=0.95)
def nearest_distance_ratio(measured: Measurement) -> float | None:
    """That median, divided by the median of the test images. Well below 1 the generator is nearer to its training
    images than new handwriting is, which means that it memorised them (Meehan et al. 2020)."""
    if measured.to_training is None or measured.reference_to_training is None:
        return None
    return float(np.median(measured.to_training)) / measured.reference_to_training


@Measure("Duplicates", "{:.1f} %", scale=100)
def duplicates(measured: Measurement) -> float:
    """The share of digits with another one in the sample that is equal or almost equal, pixel by pixel."""
    return float((measured.to_others < DUPLICATE_DISTANCE).mean())
