"""Each statistic against a closed form, a slow implementation written out from its paper, or a known invariance."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from training.evaluation import statistics
from training.evaluation.statistics import Gaussian, Manifold, nearest_images, overlap

Array = NDArray[np.float64]


def sample(n: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, (n, width))


def test_the_frechet_distance_is_the_formula_with_a_matrix_root() -> None:
    one, other = Gaussian.of(sample(300, 12, 0)), Gaussian.of(sample(200, 12, 1, 0.4) @ sample(12, 12, 2))
    root = np.real(sqrtm(one.covariance @ other.covariance))
    expected = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance + other.covariance - 2 * root)
    assert statistics.frechet_distance(one, other) == pytest.approx(expected, rel=1e-8)
    assert statistics.frechet_distance(other, one) == pytest.approx(expected, rel=1e-8)
    assert statistics.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_dead_features_leave_the_frechet_distance_finite() -> None:
    """A rectified feature may be zero for every image, so that the covariance is singular."""
    features = sample(100, 6, 0)
    features[:, 2] = 0
    moved = features + np.array([3.0, 0, 0, 0, 0, 0])
    assert statistics.frechet_distance(Gaussian.of(features), Gaussian.of(moved)) == pytest.approx(9)


def test_the_kernel_distance_is_the_unbiased_estimator_pair_by_pair() -> None:
    x, y = sample(45, 7, 0), sample(40, 7, 1, 0.5)
    within = sum(np.mean([(a @ b / 7 + 1) ** 3 for a, b in itertools.permutations(each, 2)]) for each in (x, y))
    between = np.mean([(a @ b / 7 + 1) ** 3 for a in x for b in y])
    assert statistics.kernel_distance(x, y)[0] == pytest.approx(within - 2 * between)


def test_the_kernel_distances_error_is_the_spread_of_independent_distances() -> None:
    found = [statistics.kernel_distance(sample(200, 8, 2 * k), sample(200, 8, 2 * k + 1, 0.3)) for k in range(40)]
    distances, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(np.std(distances), rel=0.4)


def test_overlap_is_what_the_papers_definitions_give_image_by_image() -> None:
    real, fake = sample(80, 4, 0), sample(60, 4, 1, 0.7)

    def near(points: Array, others: Array, k: int) -> NDArray[np.bool_]:
        """[i, j]: whether other j lies in the ball of point i."""
        radii = np.sort(cdist(points, points))[:, [k]]
        return np.asarray(cdist(points, others) <= radii)

    three, five = near(real, fake, 3), near(real, fake, 5)
    found = overlap(Manifold.of(fake), Manifold.of(real))
    np.testing.assert_array_equal(found["precise"], three.any(0))
    np.testing.assert_array_equal(found["recalled"], near(fake, real, 3).any(0))
    np.testing.assert_array_equal(found["balls"], five.sum(0))
    np.testing.assert_array_equal(found["covered"], five.any(1))


def test_the_digit_score_of_sure_and_even_readings_is_the_number_of_digits() -> None:
    assert statistics.digit_score(np.eye(10)[np.arange(100) % 10]) == pytest.approx(10)
    assert statistics.digit_score(np.eye(10)[np.arange(100) % 4]) == pytest.approx(4)
    assert statistics.digit_score(np.full((50, 10), 0.1)) == pytest.approx(1)


def test_nearest_images_are_those_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28), np.uint8)
    others = rng.integers(0, 256, (70, 28, 28), np.uint8)
    others[5] = images[3]
    others[6] = images[4]
    others[6, 0, 0] ^= 128
    expected = cdist(images.reshape(30, -1) / 255, others.reshape(70, -1) / 255)
    found, indices = nearest_images(images, others, 3)
    np.testing.assert_allclose(found, np.sort(expected)[:, :3], rtol=1e-6)
    np.testing.assert_array_equal(np.take_along_axis(expected, indices, 1), np.sort(expected)[:, :3])
    assert found[3, 0] == 0
    assert found[4, 0] == pytest.approx(128 / 255)
