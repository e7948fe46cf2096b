"""Critics' gradients are those that the losses' definitions give, each network by a way back of its own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from training.config import PRESETS, TrainingConfig
from training.critic import FEATURE_LAYERS, FEATURE_WIDTHS, judge
from training.losses import LOSSES
from training.networks import build_discriminator, build_generator
from training.step import Trainer

BATCH = 8


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_one_way_back_gives_both_networks_gradients(loss: str, penalty: float) -> None:
    generator, discriminator = build_generator(), build_discriminator(dropout=0.0)
    discriminator.layers[-1].kernel.assign(20 * discriminator.layers[-1].kernel)  # Logits far from 0.
    reals = tf.random.stateless_uniform([BATCH, 28, 28, 1], [1, 2], -1, 1)
    noise = tf.random.stateless_normal([BATCH, 100], [3, 4])
    with tf.GradientTape() as tape:
        fakes = generator(noise, training=True)
    judgement = judge(discriminator, reals, fakes, loss=loss, penalty=penalty, batch_size=BATCH)
    g_gradients = tape.gradient(fakes, generator.trainable_variables, output_gradients=judgement.fakes_gradient)

    functions = LOSSES[loss]
    with tf.GradientTape(persistent=True) as tape:
        fakes = generator(noise, training=True)
        with tf.GradientTape(persistent=True) as slope_tape:
            slope_tape.watch([reals, fakes])
            real_logits = discriminator(reals)[:, 0]
            fake_logits = discriminator(fakes)[:, 0]
        slopes = [slope_tape.gradient(logits, x) for logits, x in ((real_logits, reals), (fake_logits, fakes))]
        squares = sum(tf.reduce_sum(each**2, axis=[1, 2, 3]) for each in slopes)
        g_loss = tf.reduce_mean(functions.generator(real_logits, fake_logits))
        d_loss = tf.reduce_mean(functions.discriminator(real_logits, fake_logits))
        objective = d_loss + penalty / 2 * tf.reduce_mean(squares)
    close(g_gradients, tape.gradient(g_loss, generator.trainable_variables))
    close(judgement.gradients, tape.gradient(objective, discriminator.trainable_variables))
    np.testing.assert_allclose(judgement.losses, [g_loss, d_loss], rtol=1e-5)


def close(actual: list[Any], expected: list[Any]) -> None:
    for mine, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-7 + 1e-4 * float(np.abs(reference).max()))


def test_critics_of_features_learn_and_point_the_way(handwritten: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """They come to tell blots from digits, and moving the blots against their gradient makes them more like digits."""
    images, labels = handwritten
    recipe = replace(PRESETS["best"], batch_size=64)
    config = TrainingConfig("best", recipe, seed=0, steps=100, images=len(images), data="keras", data_sha256="")
    critics = Trainer(config, tf.distribute.get_strategy()).feature_critics
    assert critics is not None
    critics.prepare(images[:256], labels[:256])
    reals = tf.constant(images[:64, :, :, None] / np.float32(127.5) - 1)
    fakes = tf.random.stateless_uniform(reals.shape, [1, 2], -1, 1)
    features = critics._features(reals)
    assert [each.shape[1] for each in features] == [FEATURE_WIDTHS[name] for names in FEATURE_LAYERS for name in names]
    for each in features:
        assert 0.3 < float(tf.reduce_mean(tf.norm(each, axis=1))) < 3

    judging = tf.function(critics.judge)

    def gap(generated: Any) -> float:
        """How much more real the real ones look, in logits, over all heads."""
        pairs = zip(critics.heads, critics._features(reals), critics._features(generated), strict=True)
        return sum(float(tf.reduce_mean(head(real) - head(fake))) for head, real, fake in pairs)

    before = gap(fakes)
    for _ in range(20):
        gradients, direction = judging(reals, fakes)
        critics.apply(gradients)
    assert gap(fakes) > before + 1
    assert gap(fakes - 0.1 * direction / tf.reduce_max(tf.abs(direction))) < gap(fakes)
