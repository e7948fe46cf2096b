"""The adversarial losses, each written as its formula, on logits where real is positive."""

from typing import Any

import tensorflow as tf


def generator_loss(fake_logits: Any) -> Any:
    """The non-saturating loss of Goodfellow et al. 2014 (section 3): -log D(G(z)) = softplus(-logit), an example each.

    Args:
        fake_logits: float32 [N], the discriminator's logits for generated images.

    Returns:
        float32 [N], in nats; ln 2 where the discriminator can only guess.
    """
    return tf.nn.softplus(-fake_logits)


def discriminator_loss(real_logits: Any, fake_logits: Any) -> Any:
    """Binary cross-entropy: -log D(x) - log(1 - D(G(z))) = softplus(-real) + softplus(fake), a pair each.

    Args:
        real_logits: float32 [N], for training images.
        fake_logits: float32 [N], for generated images.

    Returns:
        float32 [N], in nats; 2 ln 2 where the discriminator can only guess.
    """
    return tf.nn.softplus(-real_logits) + tf.nn.softplus(fake_logits)
