"""The losses against numbers worked out by hand."""

from math import log

import numpy as np
import pytest
import tensorflow as tf

from training.config import LOSS_NAMES
from training.gan.losses import LOSSES


@pytest.mark.parametrize(
    ("name", "real", "fake", "generator", "discriminator"),
    [
        # A discriminator that guesses.
        ("non-saturating", 0, 0, log(2), 2 * log(2)),
        ("relativistic", 0, 0, log(2), log(2)),
        # sigmoid(ln 3) = 3/4 for real, sigmoid(-ln 9) = 1/10 for fake.
        ("non-saturating", log(3), -log(9), -log(0.1), -log(0.75) - log(0.9)),
        # Only the difference counts: sigmoid(ln 3) = 3/4 that the real image is the real one.
        ("relativistic", 5 + log(3), 5, -log(0.25), -log(0.75)),
        # Large logits stay finite.
        ("non-saturating", -1e4, 1e4, 0, 2e4),
        ("relativistic", -1e4, 1e4, 0, 2e4),
    ],
)
def test_losses_are_their_formulas(name: str, real: float, fake: float, generator: float, discriminator: float) -> None:
    logits = tf.constant([float(real)]), tf.constant([float(fake)])
    np.testing.assert_allclose(LOSSES[name].generator(*logits), [generator], rtol=1e-5)
    np.testing.assert_allclose(LOSSES[name].discriminator(*logits), [discriminator], rtol=1e-5)


def test_each_loss_has_a_name_in_a_configuration() -> None:
    assert set(LOSS_NAMES) == set(LOSSES)
