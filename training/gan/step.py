"""One training step: both networks, both optimisers, on one replica or many."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.contract import NOISE_DIM
from training.config import METRICS, ConfigError, TrainingConfig
from training.data import Images
from training.device_loop import DeviceLoop, on_device, own_rows
from training.gan.augmentation import RANDOM_NUMBERS, augment
from training.gan.feature_discriminators import FeatureDiscriminators
from training.gan.losses import AdversarialLosses, adversarial_losses
from training.gan.networks import averaged_generator, build_discriminator, build_generator, float32_copy, to_unit


class Trainer(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The networks, their optimisers and the step that trains them, under a distribution strategy.

    Everything that a step changes is a variable of this object, so a checkpoint of it is the whole state. The feature
    discriminators must be prepared before the first step. ``interval``, float32 [5], has the sums of METRICS over the
    current interval of the log, and the number of its steps.
    """

    def __init__(self, config: TrainingConfig, strategy: Any) -> None:
        """Raises ConfigError for a batch that the strategy's replicas can't share equally."""
        super().__init__()
        recipe = config.recipe
        if recipe.batch_size % strategy.num_replicas_in_sync:
            raise ConfigError(
                f"batch_size {recipe.batch_size} can't be shared equally by {strategy.num_replicas_in_sync} replicas"
            )
        self.config = config
        self._strategy = strategy
        keras.utils.set_random_seed(config.seed)
        keras.mixed_precision.set_global_policy("mixed_bfloat16" if config.mixed_precision else "float32")
        with strategy.scope():
            self.generator = build_generator()
            self.discriminator = build_discriminator(recipe.dropout)
            self.generator_optimizer = self._adam(recipe.generator_learning_rate)
            self.discriminator_optimizer = self._adam(recipe.discriminator_learning_rate)
            self.feature_discriminators = FeatureDiscriminators(config) if recipe.feature_weight else None
            self._discriminator_weights = list(self.discriminator.trainable_variables)
            if self.feature_discriminators:
                self._discriminator_weights += self.feature_discriminators.trainable_weights
            self.generator_optimizer.build(self.generator.trainable_variables)
            self.discriminator_optimizer.build(self._discriminator_weights)
            self.averages = [tf.Variable(weight) for weight in self.generator.trainable_variables]
            self.interval = tf.Variable(tf.zeros(len(METRICS) + 1))
        # Keras draws dropout masks from state that its own checkpointing leaves out.
        self.dropout_states = [
            layer.seed_generator.state.value
            for layer in self.discriminator.layers
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        ]

    def _adam(self, learning_rate: float) -> Any:
        recipe = self.config.recipe
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, self.config.steps, alpha=recipe.final_learning_rate
        )
        return keras.optimizers.Adam(schedule, beta_1=recipe.beta_1, beta_2=recipe.beta_2)

    @property
    def step(self) -> int:
        """Steps taken since the beginning of the run."""
        return int(self.generator_optimizer.iterations.value.numpy())

    def loop(self, images: Images) -> DeviceLoop:
        """Returns the loop that runs :meth:`train_step` on batches of the images, uint8 [N, 28, 28]."""
        images_of = on_device(images)
        return DeviceLoop(
            lambda number, rows: self.train_step(number, to_unit(images_of(rows))),
            len(images),
            self.config.recipe.batch_size,
            self.config.seed,
            figures=len(METRICS),
            strategy=self._strategy,
            xla=self.config.xla,
        )

    def train_step(self, number: Any, reals: Any) -> Any:
        """Trains both networks on one batch, of which ``reals`` are this replica's images in -1 … 1.

        All losses are sums, divided by the size of the whole batch. Returns METRICS of the whole batch, float32 [4],
        each the mean over the steps of the interval until now.
        """
        recipe = self.config.recipe
        with tf.GradientTape() as generator_tape:
            seed = tf.stack([self.config.seed, number])
            noise = tf.random.stateless_normal([recipe.batch_size, NOISE_DIM], seed)
            fakes = self.generator(own_rows(noise), training=True)
            if recipe.augmentation:
                reals, fakes = (
                    self._augmented(images, tf.random.experimental.stateless_fold_in(seed, k))
                    for k, images in enumerate((reals, fakes))
                )
            with tf.GradientTape() as discriminator_tape:
                losses = adversarial_losses(
                    recipe.loss, self.discriminator, reals, fakes, with_penalty=recipe.gradient_penalty > 0
                )
                generator_loss = losses.generator
                discriminator_loss = losses.discriminator + recipe.gradient_penalty * losses.penalty
                if self.feature_discriminators:
                    for head in self.feature_discriminators.losses(reals, fakes):
                        generator_loss += recipe.feature_weight * head.generator
                        discriminator_loss += head.discriminator + recipe.feature_penalty * head.penalty
                generator_loss /= recipe.batch_size
                discriminator_loss /= recipe.batch_size
        for tape, loss, weights, optimizer in (
            (generator_tape, generator_loss, self.generator.trainable_variables, self.generator_optimizer),
            (discriminator_tape, discriminator_loss, self._discriminator_weights, self.discriminator_optimizer),
        ):
            optimizer.apply(tape.gradient(loss, weights), weights)
        self._average_weights()
        image_losses = tf.stack([losses.generator, losses.discriminator]) / recipe.batch_size
        return self._interval_means(number, tf.concat([image_losses, self._accuracies(losses)], axis=0))

    def _accuracies(self, losses: AdversarialLosses) -> Any:
        """The shares of real and of generated images that the discriminator classifies correctly, float32 [2]."""
        recipe = self.config.recipe
        # A relativistic discriminator's logits have no zero of their own: the mean of all takes its place.
        middle = 0.0
        if recipe.loss == "relativistic":
            mean = (tf.reduce_mean(losses.real_logits) + tf.reduce_mean(losses.fake_logits)) / 2
            middle = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, mean)
        right = losses.real_logits > middle, losses.fake_logits <= middle
        return tf.stack([tf.reduce_sum(tf.cast(each, tf.float32)) for each in right]) / recipe.batch_size

    def _augmented(self, images: Any, seed: Any) -> Any:
        uniform = tf.random.stateless_uniform([self.config.recipe.batch_size, RANDOM_NUMBERS], seed)
        return augment(images, self.config.recipe.augmentation, own_rows(uniform))

    def _average_weights(self) -> None:
        steps = tf.cast(self.generator_optimizer.iterations.value, tf.float32)
        # The decay rises from small values, so that the initial weights are soon forgotten.
        decay = tf.minimum(self.config.recipe.ema_decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self.averages, self.generator.trainable_variables, strict=True):
            average.assign_add((1 - decay) * (weight.value - average))

    def _interval_means(self, number: Any, metrics: Any) -> Any:
        """Adds this replica's part of a step's METRICS to the interval, and returns its means, float32 [4]."""
        metrics = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, metrics)
        before = tf.where(number % self.config.log_every == 0, 0.0, self.interval)
        interval = before + tf.concat([metrics, [1.0]], axis=0)
        self.interval.assign(interval)
        return interval[:-1] / interval[-1]

    def averaged_generator(self) -> Any:
        """The generator that a run is judged and served by, a float32 copy: the average if the recipe keeps one."""
        recipe = self.config.recipe
        if not recipe.ema_decay:
            return float32_copy(build_generator, self.generator.get_weights())
        averages = {id(w): a.numpy() for w, a in zip(self.generator.trainable_variables, self.averages, strict=True)}
        weights = [averages.get(id(weight), np.asarray(weight)) for weight in self.generator.weights]
        return averaged_generator(weights, recipe.batch_size, self.config.seed)
