"""The adversarial losses, each written as its formula, on logits where real is positive."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

LossFunction = Callable[[Any, Any], Any]
"""Logits of real images and of generated ones, float32 [N] each -> the loss of each pair, float32 [N], in nats."""


@dataclass(frozen=True)
class Loss:
    """What the two networks minimise."""

    generator: LossFunction
    discriminator: LossFunction


LOSSES: Final = {
    # Goodfellow et al. 2014, section 3: -log D(G(z)) for the generator, -log D(x) - log(1 - D(G(z))) for the
    # discriminator. Where the discriminator can only guess they are ln 2 and 2 ln 2.
    "non-saturating": Loss(
        generator=lambda real, fake: tf.nn.softplus(-fake),
        discriminator=lambda real, fake: tf.nn.softplus(-real) + tf.nn.softplus(fake),
    ),
    # Jolicoeur-Martineau 2019, in the form of Huang et al. 2024 (R3GAN): each generated image is judged against a
    # real one, -log sigmoid(D(x) - D(G(z))) for the discriminator and the opposite for the generator. Where the
    # discriminator can only guess both are ln 2.
    "relativistic": Loss(
        generator=lambda real, fake: tf.nn.softplus(real - fake),
        discriminator=lambda real, fake: tf.nn.softplus(fake - real),
    ),
}


def chance_losses(loss: str) -> tuple[float, float]:
    """Returns the generator's and the discriminator's loss where the discriminator can only guess: at logits of 0."""
    return float(LOSSES[loss].generator(0.0, 0.0)), float(LOSSES[loss].discriminator(0.0, 0.0))


@dataclass(frozen=True)
class AdversarialLosses:
    """The losses of a generator and a discriminator: float32 sums over a batch, and the logits, float32 [N].

    ``penalty`` is the zero-centred gradient penalty without its factor: half the squared length of the slope of each
    logit, R1 on real images and R2 on generated ones (Mescheder et al. 2018, section 4.1).
    """

    generator: Any
    discriminator: Any
    penalty: Any
    real_logits: Any
    fake_logits: Any


def adversarial_losses(
    loss: str, discriminator: Any, reals: Any, fakes: Any, *, with_penalty: bool
) -> AdversarialLosses:
    """Shows a discriminator real and generated samples, float32 [N, …], and computes both networks' losses."""
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as slope_tape:
        slope_tape.watch([reals, fakes])
        real_logits = discriminator(reals, training=True)[:, 0]
        fake_logits = discriminator(fakes, training=True)[:, 0]
    penalty = tf.constant(0.0)
    if with_penalty:
        slopes = (slope_tape.gradient(real_logits, reals), slope_tape.gradient(fake_logits, fakes))
        real, fake = (tf.reduce_sum(tf.square(each), axis=list(range(1, len(each.shape)))) / 2 for each in slopes)
        penalty = tf.reduce_sum(real + fake)
    return AdversarialLosses(
        tf.reduce_sum(LOSSES[loss].generator(real_logits, fake_logits)),
        tf.reduce_sum(LOSSES[loss].discriminator(real_logits, fake_logits)),
        penalty,
        real_logits,
        fake_logits,
    )
