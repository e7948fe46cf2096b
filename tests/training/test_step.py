"""One training step moves every network against the gradient of its own loss.

Each step is compared with the losses written down a second time. So a loss with the wrong sign, a missing penalty, the
wrong batch, a frozen network and an optimiser that is never applied each fail here.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from training.config import PRESETS, TrainingConfig
from training.gan.augmentation import RANDOM_NUMBERS, augment
from training.gan.losses import LOSSES
from training.gan.step import Trainer

BATCH = 4
SEED = 3
# Without momentum, Adam's first step is the learning rate against the sign of the gradient. The penalties are large, so
# that a step without them goes another way.
RECIPE = replace(
    PRESETS["best"], batch_size=BATCH, gradient_penalty=50.0, feature_penalty=50.0, final_learning_rate=1.0
)

pytestmark = pytest.mark.usefixtures("eager")


def build(**changes: Any) -> Trainer:
    recipe = replace(RECIPE, **changes)
    config = TrainingConfig("best", recipe, seed=SEED, steps=10, images=60, data="keras", data_sha256="")
    return Trainer(config, tf.distribute.get_strategy())


def images(step: int) -> Any:
    return tf.random.stateless_uniform([BATCH, 28, 28, 1], [7, step], -1, 1)


def slope_squares(network: Any, inputs: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logits = network(inputs)
    return tf.reduce_mean(tf.reduce_sum(tape.gradient(logits, inputs) ** 2, axis=list(range(1, len(inputs.shape)))))


def feature_of(discriminators: Any, k: int, images: Any) -> Any:
    return discriminators.features(images)[k]


def seen(trainer: Trainer, images: Any, step: int, k: int) -> Any:
    """What the discriminators see of the real images (k = 0) and of the generated ones (1)."""
    seed = tf.random.experimental.stateless_fold_in([SEED, step], k)
    uniform = tf.random.stateless_uniform([BATCH, RANDOM_NUMBERS], seed)
    return augment(images, trainer.config.recipe.augmentation, uniform)


def learned(network: Any) -> list[Any]:
    """All weights of a network that training changes, frozen or not."""
    return [weight for weight in network.weights if "moving" not in weight.path and "seed" not in weight.path]


def gradients(trainer: Trainer, reals: Any, step: int) -> list[tuple[Any, Any]]:
    """Every weight with the gradient of the loss that it is to make smaller."""
    recipe = trainer.config.recipe
    loss = LOSSES[recipe.loss]
    noise = tf.random.stateless_normal([BATCH, 100], [SEED, step])
    games: list[tuple[Any, Any, float, float]] = [(trainer.discriminator, lambda x: x, 1.0, recipe.gradient_penalty)]
    if features := trainer.feature_discriminators:
        games += [
            (head, partial(feature_of, features, k), recipe.feature_weight, recipe.feature_penalty)
            for k, head in enumerate(features.heads)
        ]
    found: list[tuple[Any, Any]] = []
    reals = seen(trainer, reals, step, 0)
    generator_loss = 0.0
    with tf.GradientTape() as generator_tape:
        generator_tape.watch([weight.value for weight in learned(trainer.generator)])
        fakes = seen(trainer, trainer.generator(noise, training=True), step, 1)
        for network, see, weight, _ in games:
            generator_loss += weight * tf.reduce_mean(loss.generator(network(see(reals)), network(see(fakes))))
    for network, see, _, penalty in games:
        real, fake = see(reals), tf.stop_gradient(see(fakes))
        weights = learned(network)
        with tf.GradientTape() as tape:
            tape.watch([weight.value for weight in weights])
            objective = tf.reduce_mean(loss.discriminator(network(real), network(fake)))
            objective += penalty / 2 * (slope_squares(network, real) + slope_squares(network, fake))
        found += zip(weights, tape.gradient(objective, weights), strict=True)
    weights = learned(trainer.generator)
    return [*found, *zip(weights, generator_tape.gradient(generator_loss, weights), strict=True)]


def assert_step_follows_gradients(trainer: Trainer, step: int) -> None:
    found = gradients(trainer, images(step), step)
    expected = [(weight, weight.numpy(), gradient.numpy()) for weight, gradient in found]
    trainer.train_step(step, images(step))
    for weight, before, gradient in expected:
        if trainer.config.recipe.loss == "relativistic" and gradient.shape == (1,):
            continue  # Only differences of logits count, so the last bias has no gradient.
        clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        agreement = (np.sign(before - weight.numpy()) == np.sign(gradient))[clear].mean()
        assert agreement > 0.999, f"{weight.path}: {agreement:.1%} of the weights moved against their gradient"


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "non-saturating", "feature_weight": 0.0}, {"augmentation": 0.5}],
    ids=["best", "plain", "augmented"],
)
def test_each_step_moves_all_networks_against_their_gradients(changes: dict[str, Any]) -> None:
    """The second step has other images and other noise."""
    trainer = build(**changes)
    features = trainer.feature_discriminators
    frozen = [weight for network in features.networks for weight in network.variables] if features else []
    before = [np.asarray(weight).copy() for weight in frozen]
    for step in range(2):
        assert_step_follows_gradients(trainer, step)
    for weight, value in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generator_learns_from_a_discriminator_that_is_certain(loss: str) -> None:
    """The discriminator's own gradient is 0 there in float32, and the generator's is as large as it can be."""
    trainer = build(loss=loss, gradient_penalty=0.0, feature_weight=0.0)
    last = trainer.discriminator.layers[-1]
    last.kernel.assign(-1e5 * tf.abs(last.kernel))  # Gray images have the logit 0, generated ones far below.
    before = trainer.generator.layers[0].kernel.numpy()
    fakes = trainer.generator(tf.random.stateless_normal([BATCH, 100], [SEED, 0]), training=True)
    assert tf.reduce_max(trainer.discriminator(fakes)) < -200
    trainer.train_step(0, tf.zeros([BATCH, 28, 28, 1]))
    assert np.abs(trainer.generator.layers[0].kernel.numpy() - before).max() > 1e-4


def test_the_average_follows_the_weights() -> None:
    """Its decay after the first step is (1 + 1) / (10 + 1)."""
    trainer = build(feature_weight=0.0)
    before = trainer.averages[0].numpy()
    trainer.train_step(0, images(0))
    weight = trainer.generator.trainable_variables[0].numpy()
    np.testing.assert_allclose(trainer.averages[0].numpy(), before + 9 / 11 * (weight - before), atol=1e-7)
