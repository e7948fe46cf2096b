"""The transformations that images pass before the discriminators see them."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from training.gan.augmentation import MOST_SCALE, MOST_SHEAR, MOST_SHIFT, augment


def digits(count: int) -> Any:
    """Blurred noise within 20 pixels of 28, so that nothing is moved out of the image."""
    ink = tf.random.stateless_uniform([count, 20, 20, 1], [1, 2], 0, 2)
    return tf.pad(tf.nn.avg_pool2d(ink, 3, 1, "SAME"), [[0, 0], [4, 4], [4, 4], [0, 0]]) - 1


def numbers(*changed: tuple[int, float]) -> Any:
    """The random numbers of one image, of which only some change anything. It is transformed."""
    row = np.full(7, 0.5, np.float32)  # They change nothing.
    for place, value in (*changed, (6, 0.0)):
        row[place] = value
    return row[np.newaxis]


def moments(image: Any) -> dict[str, Any]:
    """The centre of the ink and its spread, with rows first, and how far the columns move from row to row."""
    ink = np.asarray(image, np.float64)[..., 0] + 1
    places = np.stack(np.meshgrid(np.arange(28), np.arange(28), indexing="ij")) - 13.5
    centre = (places * ink).sum((1, 2)) / ink.sum()
    off = places - centre[:, None, None]
    covariance = np.einsum("aij,bij,ij->ab", off, off, ink) / ink.sum()
    return {"centre": centre, "spread": np.sqrt(np.diag(covariance)), "slant": covariance[0, 1] / covariance.diagonal()}


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_images_that_are_not_chosen_stay_as_they_are(share: float) -> None:
    uniform = tf.concat([tf.random.stateless_uniform([8, 6], [3, 4]), tf.fill([8, 1], 0.95)], axis=1)
    np.testing.assert_allclose(augment(digits(8), share, uniform), digits(8), atol=1e-6)


def test_the_share_of_transformed_images_is_the_one_given() -> None:
    images, uniform = digits(1000), tf.random.stateless_uniform([1000, 7], [5, 6])
    moved = np.abs(augment(images, 0.3, uniform) - images).max((1, 2, 3)) > 1e-5
    assert 0.25 < moved.mean() < 0.35


def test_a_digit_is_shifted_along_both_axes_and_scaled_and_sheared_along_one() -> None:
    before = moments(digits(1)[0])
    shifted, scaled, sheared = (
        moments(augment(digits(1), 0.5, numbers(*changed))[0])
        for changed in ([(0, 1.0), (3, 0.0)], [(2, 0.0)], [(1, 0.0)])
    )
    np.testing.assert_allclose(shifted["centre"] - before["centre"], [MOST_SHIFT, -MOST_SHIFT], atol=1e-4)
    np.testing.assert_allclose(shifted["spread"], before["spread"], rtol=1e-4)
    np.testing.assert_allclose(scaled["spread"] / before["spread"], [1, 1 / (1 - MOST_SCALE)], atol=0.02)
    assert sheared["slant"][0] - before["slant"][0] == pytest.approx(MOST_SHEAR, abs=0.01)


def test_the_generator_learns_through_it() -> None:
    """The transformation is linear in the ink, so gradient times ink, summed over the pixels, is the weighted sum."""
    images, uniform = digits(3), tf.random.stateless_uniform([3, 7], [7, 8])
    weights = tf.random.stateless_normal(images.shape, [9, 10])
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(weights * (augment(images, 0.9, uniform) + 1))
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(total, images) * (images + 1)), total, rtol=1e-4)
