"""The losses against numbers worked out by hand."""

import math

import numpy as np
import tensorflow as tf

from training.losses import discriminator_loss, generator_loss


def test_a_discriminator_that_guesses_gives_ln_2_and_2_ln_2() -> None:
    zero = tf.zeros(3)
    np.testing.assert_allclose(generator_loss(zero), [math.log(2)] * 3, rtol=1e-6)
    np.testing.assert_allclose(discriminator_loss(zero, zero), [2 * math.log(2)] * 3, rtol=1e-6)


def test_the_generator_gains_where_its_images_are_taken_for_real() -> None:
    """-log sigmoid(ln 3) = -log 3/4."""
    np.testing.assert_allclose(generator_loss(tf.constant([math.log(3)])), [math.log(4 / 3)], rtol=1e-6)


def test_the_discriminator_gains_where_real_is_positive_and_fake_negative() -> None:
    """sigmoid(ln 3) = 3/4 for real, sigmoid(-ln 9) = 1/10 for fake: -log 3/4 - log 9/10."""
    loss = discriminator_loss(tf.constant([math.log(3)]), tf.constant([-math.log(9)]))
    np.testing.assert_allclose(loss, [-math.log(0.75) - math.log(0.9)], rtol=1e-6)


def test_large_logits_stay_finite() -> None:
    assert np.isfinite(discriminator_loss(tf.constant([-1e4]), tf.constant([1e4]))).all()
    np.testing.assert_allclose(generator_loss(tf.constant([-1e4])), [1e4])
