"""One step's gradients are those that the losses' definitions give, each network by a way back of its own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from training.config import PRESETS, TrainingConfig
from training.losses import LOSSES
from training.step import Trainer

BATCH = 8


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_one_way_back_gives_both_networks_gradients(loss: str, penalty: float) -> None:
    recipe = replace(PRESETS["deck"], batch_size=BATCH, dropout=0.0, loss=loss, gradient_penalty=penalty)
    config = TrainingConfig("deck", recipe, seed=1, steps=9, images=99, data="keras", data_sha256="")
    trainer = Trainer(config, tf.distribute.get_strategy())
    reals = tf.random.stateless_uniform([BATCH, 28, 28, 1], [1, 2], -1, 1)
    for _ in range(2):  # away from where every logit is 0
        trainer.train_step(reals)
    with tf.GradientTape() as tape:
        fakes = trainer.generator(tf.random.stateless_normal([BATCH, 100], [3, 4]), training=True)
    d_gradients, fakes_gradient, metrics = trainer._judge(reals, fakes)
    g_gradients = tape.gradient(fakes, trainer.generator.trainable_variables, output_gradients=fakes_gradient)

    functions = LOSSES[loss]
    with tf.GradientTape(persistent=True) as tape:
        fakes = trainer.generator(tf.random.stateless_normal([BATCH, 100], [3, 4]), training=True)
        with tf.GradientTape(persistent=True) as slope_tape:
            slope_tape.watch([reals, fakes])
            real_logits = trainer.discriminator(reals)[:, 0]
            fake_logits = trainer.discriminator(fakes)[:, 0]
        slopes = [slope_tape.gradient(logits, x) for logits, x in ((real_logits, reals), (fake_logits, fakes))]
        squares = sum(tf.reduce_sum(each**2, axis=[1, 2, 3]) for each in slopes)
        g_loss = tf.reduce_mean(functions.generator(real_logits, fake_logits))
        d_loss = tf.reduce_mean(functions.discriminator(real_logits, fake_logits))
        objective = d_loss + penalty / 2 * tf.reduce_mean(squares)
    close(g_gradients, tape.gradient(g_loss, trainer.generator.trainable_variables))
    close(d_gradients, tape.gradient(objective, trainer.discriminator.trainable_variables))
    np.testing.assert_allclose(metrics[:2], [g_loss, d_loss], rtol=1e-5)


def close(actual: list[Any], expected: list[Any]) -> None:
    for mine, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-7 + 1e-4 * float(np.abs(reference).max()))
