"""Each statistic against a closed form, a slow implementation written out from its paper, or a known invariance."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from training.evaluation import statistics
from training.evaluation.distances import nearest_images, nearest_neighbour_radii, squared_distances
from training.evaluation.statistics import Gaussian, Manifold

Array = NDArray[np.float64]


def sample(n: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, (n, width))


def test_the_frechet_distance_of_known_normals_is_the_closed_form() -> None:
    """For diagonal covariances it is Σ (μ1 - μ2)² + (σ1 - σ2)²."""
    one = Gaussian(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 9.0]))
    other = Gaussian(np.array([1.0, 1.0, 0.0]), np.diag([4.0, 1.0, 9.0]))
    assert statistics.frechet_distance(one, other) == pytest.approx(1 + 4 + 1 + 1)


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
    order = np.random.default_rng(0)
    x_groups = np.array_split(x[order.permutation(45)], 20)
    y_groups = np.array_split(y[order.permutation(40)], 20)

    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / 7 + 1) ** 3)

    def estimate(ours: Array, theirs: Array) -> float:
        within = np.mean([kernel(a, b) for a, b in itertools.permutations(ours, 2)])
        within += np.mean([kernel(a, b) for a, b in itertools.permutations(theirs, 2)])
        return float(within - 2 * np.mean([kernel(a, b) for a in ours for b in theirs]))

    again = [
        estimate(
            np.concatenate([group for j, group in enumerate(x_groups) if j != i]),
            np.concatenate([group for j, group in enumerate(y_groups) if j != i]),
        )
        for i in range(20)
    ]
    distance, error = statistics.kernel_distance(x, y)
    assert distance == pytest.approx(estimate(x, y))
    assert error == pytest.approx(np.sqrt(19 * np.var(again)))


def test_the_kernel_distances_error_is_the_spread_of_independent_distances() -> None:
    found = [statistics.kernel_distance(sample(400, 8, 2 * k), sample(400, 8, 2 * k + 1, 0.3)) for k in range(60)]
    distances, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(np.std(distances), rel=0.35)


def test_the_kernel_distance_is_zero_within_its_error_for_the_same_distribution() -> None:
    distance, error = statistics.kernel_distance(sample(5000, 16, 0), sample(5000, 16, 1))
    assert abs(distance) < 3 * error
    distance, error = statistics.kernel_distance(sample(5000, 16, 0), sample(5000, 16, 1, 0.2))
    assert distance > 5 * error > 0


def test_the_radii_are_those_of_sorted_distances() -> None:
    points = sample(1100, 5, 0)  # More than one block of rows.
    distances = ((points[:, None] - points) ** 2).sum(2)
    expected = np.sort(distances, axis=1)[:, [3, 5]].T  # Place 0 is the point itself.
    np.testing.assert_allclose(nearest_neighbour_radii(points, (3, 5)), expected, atol=1e-9)


def test_overlap_is_what_the_papers_definitions_give_image_by_image() -> None:
    real, fake = sample(80, 4, 0), sample(60, 4, 1, 0.7)

    def radius(points: Array, i: int, k: int) -> float:
        return float(np.sort(np.linalg.norm(points - points[i], axis=1))[k])

    def near(points: Array, others: Array, k: int) -> NDArray[np.bool_]:
        """[i, j]: whether other j lies in the ball of point i."""
        return np.array([[np.linalg.norm(p - q) <= radius(points, i, k) for q in others] for i, p in enumerate(points)])

    three, five = near(real, fake, 3), near(real, fake, 5)
    assert statistics.overlap(Manifold.of(fake), Manifold.of(real)) == pytest.approx(
        {
            "precision": three.any(0).mean(),
            "recall": near(fake, real, 3).any(0).mean(),
            "density": five.sum() / (5 * 60),
            "coverage": five.any(1).mean(),
        }
    )


def test_overlap_tells_a_missing_mode_from_a_false_one() -> None:
    both = np.concatenate([sample(300, 3, 0), sample(300, 3, 1, 50)])
    left = sample(600, 3, 2)
    missing = statistics.overlap(Manifold.of(left), Manifold.of(both))
    assert missing["precision"] > 0.9
    assert missing["recall"] < 0.55
    assert missing["coverage"] < 0.55
    false = statistics.overlap(Manifold.of(both), Manifold.of(left))
    assert false["precision"] < 0.55
    assert false["recall"] > 0.9


def test_turning_the_features_changes_nothing() -> None:
    real, fake = sample(200, 8, 0), sample(200, 8, 1, 0.3)
    turn, _ = np.linalg.qr(sample(8, 8, 2))
    plain = statistics.overlap(Manifold.of(fake), Manifold.of(real))
    assert statistics.overlap(Manifold.of(fake @ turn), Manifold.of(real @ turn)) == pytest.approx(plain)
    assert statistics.kernel_distance(fake @ turn, real @ turn) == pytest.approx(statistics.kernel_distance(fake, real))


def test_the_digit_score_of_sure_and_even_readings_is_the_number_of_digits() -> None:
    assert statistics.digit_score(np.eye(10)[np.arange(100) % 10]) == pytest.approx(10)
    assert statistics.digit_score(np.eye(10)[np.arange(100) % 4]) == pytest.approx(4)
    assert statistics.digit_score(np.full((50, 10), 0.1)) == pytest.approx(1)


def test_shares_and_their_divergence() -> None:
    digits = np.array([0] * 50 + [1] * 50)
    shares = statistics.class_shares(digits)
    np.testing.assert_allclose(shares, [0.5, 0.5] + [0] * 8)
    assert statistics.class_divergence(shares, np.full(10, 0.1)) == pytest.approx(np.log(5))
    assert statistics.class_divergence(shares, shares) == 0
    assert statistics.legible_share(np.array([[0.99, 0.01], [0.98, 0.02]])) == 0.5


def test_nearest_images_are_those_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28), np.uint8)
    others = rng.integers(0, 256, (70, 28, 28), np.uint8)
    others[5] = images[3]
    others[6] = images[4]
    others[6, 0, 0] ^= 128
    wide, far = images.astype(float) / 255, others.astype(float) / 255
    expected = np.sqrt(((wide[:, None] - far) ** 2).sum((2, 3)))
    found = nearest_images(images, others)
    np.testing.assert_allclose(found, expected.min(1))
    assert found[3] == 0
    assert found[4] == pytest.approx(128 / 255)

    excluded = expected.argmin(1)
    expected[np.arange(30), excluded] = np.inf
    told: list[int] = []
    np.testing.assert_allclose(nearest_images(images, others, excluded, told.append), expected.min(1))
    assert sum(told) == 30
    assert nearest_images(images[:1], images[:1], np.array([0])).tolist() == [np.inf]


def test_squared_distances_are_never_negative() -> None:
    points = np.full((4, 100), 1e4 / 3, np.float32)
    assert squared_distances(points, points).min() >= 0
