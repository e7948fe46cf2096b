"""The losses against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from training.config import LOSS_NAMES
from training.gan.losses import LOSSES, slope_penalty

NON_SATURATING, RELATIVISTIC = LOSSES["non-saturating"], LOSSES["relativistic"]


def test_the_names_in_a_configuration_are_the_losses() -> None:
    assert set(LOSS_NAMES) == set(LOSSES)


def test_a_discriminator_that_guesses_gives_ln_2_and_2_ln_2() -> None:
    zero = tf.zeros(3)
    np.testing.assert_allclose(NON_SATURATING.generator(zero, zero), [math.log(2)] * 3, rtol=1e-6)
    np.testing.assert_allclose(NON_SATURATING.discriminator(zero, zero), [2 * math.log(2)] * 3, rtol=1e-6)
    np.testing.assert_allclose(RELATIVISTIC.generator(zero, zero), [math.log(2)] * 3, rtol=1e-6)
    np.testing.assert_allclose(RELATIVISTIC.discriminator(zero, zero), [math.log(2)] * 3, rtol=1e-6)


def test_the_generator_gains_where_its_images_are_taken_for_real() -> None:
    """-log sigmoid(ln 3) = -log 3/4."""
    fake = tf.constant([math.log(3)])
    np.testing.assert_allclose(NON_SATURATING.generator(fake - 9, fake), [math.log(4 / 3)], rtol=1e-6)


def test_the_discriminator_gains_where_real_is_positive_and_fake_negative() -> None:
    """sigmoid(ln 3) = 3/4 for real, sigmoid(-ln 9) = 1/10 for fake: -log 3/4 - log 9/10."""
    loss = NON_SATURATING.discriminator(tf.constant([math.log(3)]), tf.constant([-math.log(9)]))
    np.testing.assert_allclose(loss, [-math.log(0.75) - math.log(0.9)], rtol=1e-6)


def test_only_the_difference_counts_between_relativistic_logits() -> None:
    """sigmoid(ln 3) = 3/4 that the real image is the real one, 1/4 that the generated one is."""
    real, fake = tf.constant([5 + math.log(3)]), tf.constant([5.0])
    np.testing.assert_allclose(RELATIVISTIC.discriminator(real, fake), [-math.log(0.75)], rtol=1e-5)
    np.testing.assert_allclose(RELATIVISTIC.generator(real, fake), [-math.log(0.25)], rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_large_logits_stay_finite(loss: object) -> None:
    far, near = tf.constant([1e4]), tf.constant([-1e4])
    for function in (loss.generator, loss.discriminator):  # type: ignore[attr-defined]
        assert np.isfinite(function(near, far)).all()
        assert np.isfinite(function(far, near)).all()


def test_the_penalty_is_half_the_squared_slope() -> None:
    slopes = tf.constant([[3.0, 4.0], [0.0, 0.0]])[:, :, None, None]
    np.testing.assert_allclose(slope_penalty(slopes), [12.5, 0.0])
