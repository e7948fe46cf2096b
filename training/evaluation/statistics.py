"""The statistics of an evaluation: pure functions of features, probabilities and pixels.

Features are floating point [N, D], a row an image. Everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics.pairwise import polynomial_kernel

from serving.contract import CLASSES
from training.evaluation.distances import nearest_neighbour_radii, squared_distance_rows

Floats = NDArray[np.floating[Any]]

LEGIBLE: Final = 0.99
"""The top probability from which an image counts as a legible digit."""
KERNEL_GROUPS: Final = 20
"""Groups of images that the kernel distance's jackknife leaves out by turns."""
MANIFOLD_NEIGHBOURS: Final = 3
"""k of precision and recall, as Kynkäänniemi et al. 2019 recommend."""
DENSITY_NEIGHBOURS: Final = 5
"""k of density and coverage, as Naeem et al. 2020 choose it."""
LEAST_IMAGES: Final = KERNEL_GROUPS
"""Below this there are no groups, and no neighbours to speak of."""


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution with the features' mean and covariance.

    Attributes:
        mean: float64 [D].
        covariance: float64 [D, D].
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> "Gaussian":
        """Fits it to features [N, D]."""
        wide = features.astype(np.float64)
        return cls(wide.mean(0), np.cov(wide, rowvar=False))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The squared Fréchet distance of two normal distributions: |μ1 - μ2|² + Tr(Σ1 + Σ2 - 2(Σ1 Σ2)^½).

    Heusel et al. 2017 (equation 6), after Dowson & Landau 1982. The trace of the root is the sum of the roots of the
    eigenvalues of Σ1^½ Σ2 Σ1^½, which is symmetric, so that nothing complex and nothing negative comes of rounding.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ other.covariance @ root)
    trace = np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.sqrt(np.maximum(middle, 0)).sum()
    return float(((one.mean - other.mean) ** 2).sum() + trace)


def kernel_distance(generated: Floats, reference: Floats, seed: int = 0) -> tuple[float, float]:
    """The kernel distance and its standard error.

    Bińkowski et al. 2018 (section 4): the squared maximum mean discrepancy under the kernel (x·y/D + 1)³, by the
    unbiased estimator of Gretton et al. 2012 (equation 3), over all pairs. Its standard error is the jackknife's (Tukey
    1958; Efron & Tibshirani 1993, section 11.5) over groups of images: the estimate is made again without each group.

    Args:
        generated: [N, D].
        reference: [M, D].
        seed: decides the groups.

    Returns:
        The distance, which may be slightly negative, and its standard error.
    """
    rng = np.random.default_rng(seed)
    x, y = (features[rng.permutation(len(features))].astype(np.float64) for features in (generated, reference))
    n, m = (np.array([len(part) for part in np.array_split(features, KERNEL_GROUPS)]) for features in (x, y))
    within_x, within_y, between = _kernel_sums(x, x), _kernel_sums(y, y), _kernel_sums(x, y)
    for sums, features in ((within_x, x), (within_y, y)):  # An image makes no pair with itself.
        own = ((features**2).sum(1) / features.shape[1] + 1) ** 3
        sums -= np.diag([part.sum() for part in np.array_split(own, KERNEL_GROUPS)])

    def estimate(kept: NDArray[np.bool_]) -> float:
        ours, theirs, both = int(n[kept].sum()), int(m[kept].sum()), np.ix_(kept, kept)
        terms = within_x[both].sum() / (ours * (ours - 1)) + within_y[both].sum() / (theirs * (theirs - 1))
        return float(terms - 2 * between[both].sum() / (ours * theirs))

    again = np.array([estimate(np.arange(KERNEL_GROUPS) != left_out) for left_out in range(KERNEL_GROUPS)])
    error = np.sqrt((KERNEL_GROUPS - 1) / KERNEL_GROUPS * ((again - again.mean()) ** 2).sum())
    return estimate(np.ones(KERNEL_GROUPS, bool)), float(error)


def _kernel_sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the kernel's values over the pairs of each group of x with each group of y: float64 [20, 20]."""
    starts = np.cumsum([0, *(len(part) for part in np.array_split(y, KERNEL_GROUPS)[:-1])])
    rows = [
        np.add.reduceat(polynomial_kernel(part, y, degree=3, gamma=1 / y.shape[1], coef0=1).sum(0), starts)
        for part in np.array_split(x, KERNEL_GROUPS)
    ]
    return np.array(rows)


@dataclass(frozen=True)
class Manifold:
    """Features with the squared radii of the balls around them that reach to their k-th nearest neighbours.

    Attributes:
        features: float64 [N, D].
        precision_radii: float64 [N], k = 3.
        density_radii: float64 [N], k = 5.
    """

    features: NDArray[np.float64]
    precision_radii: NDArray[np.float64]
    density_radii: NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> "Manifold":
        """Measures the radii of features [N, D], N at least LEAST_IMAGES."""
        wide = features.astype(np.float64)
        radii = nearest_neighbour_radii(wide, (MANIFOLD_NEIGHBOURS, DENSITY_NEIGHBOURS))
        return cls(wide, *radii)


def overlap(generated: Manifold, reference: Manifold) -> dict[str, float]:
    """How the manifolds of generated and of reference features lie to each other.

    Returns:
        ``precision``, the share of generated images within the ball of any reference image, and ``recall``, the share
        of reference images within the ball of any generated one (Kynkäänniemi et al. 2019, equations 1 and 2, k = 3);
        ``density``, the mean number of reference balls around a generated image, over k, and ``coverage``, the share
        of reference balls with a generated image in them (Naeem et al. 2020, equations 3 and 4, k = 5). Density may
        exceed 1; the others may not.
    """
    within_any = np.zeros(len(generated.features), bool)
    recalled = covered = balls = 0
    for rows, distances in squared_distance_rows(reference.features, generated.features):
        within_any |= (distances <= reference.precision_radii[rows, None]).any(0)
        recalled += int((distances <= generated.precision_radii).any(1).sum())
        dense = distances <= reference.density_radii[rows, None]
        balls += int(dense.sum())
        covered += int(dense.any(1).sum())
    return {
        "precision": float(within_any.mean()),
        "recall": recalled / len(reference.features),
        "density": balls / (DENSITY_NEIGHBOURS * len(generated.features)),
        "coverage": covered / len(reference.features),
    }


def digit_score(probabilities: Floats) -> float:
    """The "MNIST score": exp of the mean KL divergence of p(digit | image) from p(digit), from 1 to 10.

    The formula of the Inception score (Salimans et al. 2016, section 4), with our classifier in Inception's place.

    Args:
        probabilities: [N, 10].
    """
    wide = probabilities.astype(np.float64)
    return float(np.exp(entropy(wide, wide.mean(0, keepdims=True), axis=1).mean()))


def legible_share(probabilities: Floats) -> float:
    """The share of images with a top probability of at least 0.99, of probabilities [N, 10]."""
    return float((probabilities.max(1) >= LEGIBLE).mean())


def class_shares(digits: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """How large a part of the images each digit is: float64 [10], of digits [N]."""
    return np.bincount(digits, minlength=CLASSES) / len(digits)


def class_divergence(shares: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """The KL divergence (Kullback & Leibler 1951), in nats, of the classes' shares from the reference's."""
    return float(entropy(shares, reference))
