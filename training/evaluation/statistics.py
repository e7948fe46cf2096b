"""Statistics of an evaluation, computed in float64. Features are floating point [N, D], one row for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy
from scipy.stats import t as student
from sklearn.metrics import pairwise_distances_chunked
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from serving.contract import CLASSES
from serving.errors import UserError
from training.data import Images

Floats = NDArray[np.floating[Any]]

GROUPS: Final = 10
"""Groups of images that the jackknife leaves out in turn."""
LEGIBLE_CONFIDENCE: Final = 0.99
"""The probability of the most likely digit from which an image counts as legible."""
KERNEL_GROUPS: Final = 20
"""Groups of images for the standard error of the kernel distance: each takes every twentieth image."""
PRECISION_NEIGHBOURS: Final = 3
"""k of precision and recall, as Kynkäänniemi et al. 2019 recommend."""
DENSITY_NEIGHBOURS: Final = 5
"""k of density and coverage, as Naeem et al. 2020 choose it."""
MIN_IMAGES: Final = 20
"""Fewer images have too few neighbours for these statistics."""
_CHUNK_MIB: Final = 64


def without(rows: NDArray[Any], group: int) -> NDArray[Any]:
    """Leaves out every tenth row, from the row ``group`` on."""
    return np.delete(rows, slice(group, None, GROUPS), axis=0)


def half_width(freedom: int) -> float:
    """Half the width of a 95 % interval, in standard errors with so many degrees of freedom (Student's t)."""
    return float(student.ppf(0.975, freedom))


def intervals(whole: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Computes 95 % intervals of figures that are not negative, from the same figures without each group of the images.

    By the delete-a-group jackknife (Kott 2001). A bootstrap would repeat images, and the Fréchet distance of a sample
    with repeated images is too great. A figure is a float or a list of floats.
    """
    width = half_width(GROUPS - 1) * np.sqrt(GROUPS - 1)
    margins = {name: width * np.std([part[name] for part in parts], axis=0) for name in whole}
    return {
        name: [np.maximum(0, figure - margins[name]).tolist(), (figure + margins[name]).tolist()]
        for name, figure in ((name, np.asarray(figure)) for name, figure in whole.items())
    }


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution with the mean, float64 [D], and the covariance, float64 [D, D], of features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> "Gaussian":
        wide = features.astype(np.float64)
        return cls(wide.mean(0), np.cov(wide, rowvar=False))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The squared Fréchet distance |μ1 - μ2|² + Tr(Σ1 + Σ2 - 2(Σ1 Σ2)^½) (Heusel et al. 2017, equation 6).

    The trace of the root is the sum of the roots of the eigenvalues of Σ1^½ Σ2 Σ1^½, which is symmetric, so rounding
    can't make the result complex or negative.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ other.covariance @ root)
    trace = np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.sqrt(np.maximum(middle, 0)).sum()
    return float(((one.mean - other.mean) ** 2).sum() + trace)


def kernel_distance(generated: Floats, reference: Floats) -> tuple[float, float]:
    """The kernel distance of Bińkowski et al. 2018 (section 4), and its standard error by the jackknife over groups.

    It is the squared maximum mean discrepancy under the kernel (x·y/D + 1)³, by the unbiased estimator of Gretton et
    al. 2012 (equation 3) over all pairs; chance can make it slightly negative.
    """
    x, y = generated.astype(np.float64), reference.astype(np.float64)
    x_sizes, y_sizes = (np.array([len(each[k::KERNEL_GROUPS]) for k in range(KERNEL_GROUPS)]) for each in (x, y))
    within_x, within_y, between = _kernel_sums(x, x), _kernel_sums(y, y), _kernel_sums(x, y)
    for sums, features in ((within_x, x), (within_y, y)):  # An image makes no pair with itself.
        own = ((features**2).sum(1) / features.shape[1] + 1) ** 3
        sums -= np.diag([own[k::KERNEL_GROUPS].sum() for k in range(KERNEL_GROUPS)])

    def estimate(kept: NDArray[np.bool_]) -> float:
        n, m, both = int(x_sizes[kept].sum()), int(y_sizes[kept].sum()), np.ix_(kept, kept)
        within = within_x[both].sum() / (n * (n - 1)) + within_y[both].sum() / (m * (m - 1))
        return float(within - 2 * between[both].sum() / (n * m))

    parts = [estimate(np.arange(KERNEL_GROUPS) != left_out) for left_out in range(KERNEL_GROUPS)]
    return estimate(np.ones(KERNEL_GROUPS, bool)), float(np.std(parts) * np.sqrt(KERNEL_GROUPS - 1))


def _kernel_sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the kernel's values over the pairs of each group of x with each of y: float64 [20, 20]."""
    groups = [slice(k, None, KERNEL_GROUPS) for k in range(KERNEL_GROUPS)]
    columns = [polynomial_kernel(x[rows], y, degree=3, gamma=1 / y.shape[1], coef0=1).sum(0) for rows in groups]
    return np.array([[sums[rows].sum() for rows in groups] for sums in columns])


@dataclass(frozen=True)
class Manifold:
    """Features, float64 [N, D], and each one's distances to the third and the fifth nearest other one, float64 [N]."""

    features: NDArray[np.float64]
    precision_radii: NDArray[np.float64]
    density_radii: NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> "Manifold":
        """Raises UserError if they are fewer than MIN_IMAGES."""
        if len(features) < MIN_IMAGES:
            raise UserError(f"{len(features)} images are too few to be measured; at least {MIN_IMAGES} are needed")
        wide = features.astype(np.float64)
        distances, _ = NearestNeighbors(n_neighbors=DENSITY_NEIGHBOURS, algorithm="brute").fit(wide).kneighbors()
        return cls(wide, distances[:, PRECISION_NEIGHBOURS - 1], distances[:, DENSITY_NEIGHBOURS - 1])


def overlap(generated: Manifold, reference: Manifold) -> dict[str, Any]:
    """Compares all pairs of N generated and M reference features.

    ``precise`` [N]: whether one is in the precision ball of any reference; ``recalled`` [M]: the reverse (Kynkäänniemi
    et al. 2019, equations 1 and 2). ``balls`` [N]: in how many references' density balls one is; ``covered`` [M]:
    whether any is in that of a reference (Naeem et al. 2020, equations 3 and 4).
    """
    precise, balls = np.zeros(len(generated.features), bool), np.zeros(len(generated.features), np.int64)
    recalled, covered, first = [], [], 0
    for distances in pairwise_distances_chunked(reference.features, generated.features, working_memory=_CHUNK_MIB):
        rows = slice(first, first + len(distances))
        first = rows.stop
        precise |= (distances <= reference.precision_radii[rows, None]).any(0)
        recalled.append((distances <= generated.precision_radii).any(1))
        within = distances <= reference.density_radii[rows, None]
        balls += within.sum(0)
        covered.append(within.any(1))
    return {
        "precise": precise,
        "recalled": np.concatenate(recalled),
        "balls": balls,
        "covered": np.concatenate(covered),
    }


def digit_score(probabilities: Floats) -> float:
    """Exp of the mean KL divergence of p(digit | image) from p(digit), 1 to 10 (Salimans et al. 2016, section 4)."""
    wide = probabilities.astype(np.float64)
    return float(np.exp(entropy(wide, wide.mean(0, keepdims=True), axis=1).mean()))


def legible_share(probabilities: Floats) -> float:
    """The share of images that show a digit with a probability of at least 0.99."""
    return float((probabilities.max(1) >= LEGIBLE_CONFIDENCE).mean())


def class_shares(digits: NDArray[np.integer[Any]]) -> list[float]:
    """The share of each of the ten digits."""
    shares: list[float] = (np.bincount(digits, minlength=CLASSES) / len(digits)).tolist()
    return shares


def nearest_images(images: Images, others: Images, count: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest of other images: ascending Euclidean distances on pixels from 0 to 1, and indices, [N, count]."""
    # Sums of squared bytes are exact in float64, so the distance of a copy is 0.
    rows, other_rows = (each.reshape(len(each), -1).astype(np.float64) for each in (images, others))
    distances, indices = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(other_rows).kneighbors(rows)
    return distances / 255, indices
