"""One training step: both networks, both optimisers, on one replica or many."""

from typing import Any

import keras
import tensorflow as tf

from serving.contract import NOISE_DIM
from training.config import ConfigError, TrainingConfig
from training.critic import FeatureCritics, Judgement, judge
from training.metrics import METRICS
from training.networks import (
    STATISTICS_BATCHES,
    build_discriminator,
    build_generator,
    float32_copy,
    set_batch_statistics,
)
from training.optimizer import Adam


class Trainer(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The networks, their optimisers and the step that trains them, under a distribution strategy.

    Everything that a step changes is a variable of this object, so a checkpoint of it is the whole state.

    Attributes:
        generator: noise -> images, the weights being trained.
        discriminator: images -> logits.
        feature_critics: the critics of features, where the recipe has any; to be prepared before the first
            step.
        averages: the exponential moving averages of the generator's trainable weights.
        interval: float32 [5], the sums of METRICS since the last line of the log, and the number of steps in them.
    """

    def __init__(self, config: TrainingConfig, strategy: Any) -> None:
        """Raises ConfigError for a batch that the strategy's replicas can't share equally."""
        super().__init__()
        recipe = config.recipe
        if recipe.batch_size % strategy.num_replicas_in_sync:
            raise ConfigError(
                f"batch_size {recipe.batch_size} can't be shared equally by {strategy.num_replicas_in_sync} replicas"
            )
        self._config = config
        self._strategy = strategy
        keras.utils.set_random_seed(config.seed)
        keras.mixed_precision.set_global_policy("mixed_bfloat16" if config.mixed_precision else "float32")
        with strategy.scope():
            self.generator = build_generator()
            self.discriminator = build_discriminator(recipe.dropout)
            self.generator_optimizer = self._adam(recipe.generator_learning_rate)
            self.discriminator_optimizer = self._adam(recipe.discriminator_learning_rate)
            self.generator_optimizer.build(self.generator.trainable_variables)
            self.discriminator_optimizer.build(self.discriminator.trainable_variables)
            self.feature_critics = (
                FeatureCritics(config, self._adam(recipe.discriminator_learning_rate))
                if recipe.feature_critics
                else None
            )
            self.averages = [tf.Variable(weight) for weight in self.generator.trainable_variables]
            self.interval = tf.Variable(tf.zeros(len(METRICS) + 1))
        # Keras draws dropout masks from state that its own checkpointing leaves out.
        self.dropout_states = [
            layer.seed_generator.state.value
            for layer in self.discriminator.layers
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        ]
        self._replica_step = tf.function(self._on_replica, jit_compile=config.xla, reduce_retracing=True)

    def _adam(self, learning_rate: float) -> Any:
        recipe = self._config.recipe
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, self._config.steps, alpha=recipe.final_learning_rate
        )
        return Adam(schedule, beta_1=recipe.beta_1, beta_2=recipe.beta_2)

    @property
    def step(self) -> int:
        """Steps taken since the beginning of the run."""
        return int(self.generator_optimizer.iterations.value.numpy())

    @tf.function  # type: ignore[untyped-decorator]
    def train_step(self, images: Any) -> Any:
        """Trains both networks on one batch.

        Args:
            images: float32 [batch_size, 28, 28, 1] in -1 … 1, distributed by the strategy.

        Returns:
            float32 [4]: METRICS, the mean over the whole batch.
        """
        per_replica = self._strategy.run(self._replica_step, args=(images,))
        metrics = self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
        self._average_weights()
        self.interval.assign_add(tf.concat([metrics, [1.0]], axis=0))
        return metrics

    def _on_replica(self, images: Any) -> Any:
        recipe = self._config.recipe
        with tf.GradientTape() as tape:
            fakes = self.generator(self._noise(len(images)), training=True)
        judgement = judge(
            self.discriminator,
            images,
            fakes,
            loss=recipe.loss,
            penalty=recipe.gradient_penalty,
            batch_size=recipe.batch_size,
        )
        fakes_gradient = judgement.fakes_gradient
        if self.feature_critics:
            gradients, by_features = self.feature_critics.judge(images, fakes)
            fakes_gradient += recipe.feature_critics * by_features
            self.feature_critics.apply(gradients)
        g_variables = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(fakes, g_variables, output_gradients=fakes_gradient), g_variables)
        self.discriminator_optimizer.apply(judgement.gradients, self.discriminator.trainable_variables)
        return tf.concat([judgement.losses, self._accuracies(judgement)], axis=0)

    def _accuracies(self, judgement: Judgement) -> Any:
        """The shares of real and of generated images that the discriminator told rightly, float32 [2]."""
        recipe = self._config.recipe
        # A relativistic discriminator's logits have no zero of their own: the mean of all stands for it.
        middle = 0.0
        if recipe.loss == "relativistic":
            mean = (tf.reduce_mean(judgement.real_logits) + tf.reduce_mean(judgement.fake_logits)) / 2
            middle = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, mean)
        right = judgement.real_logits > middle, judgement.fake_logits <= middle
        return tf.stack([tf.reduce_sum(tf.cast(each, tf.float32)) for each in right]) / recipe.batch_size

    def _noise(self, rows: int) -> Any:
        """This replica's rows of the step's noise, which depends on the seed and the step alone."""
        step = tf.cast(self.generator_optimizer.iterations.value, tf.int32)
        noise = tf.random.stateless_normal(
            [self._config.recipe.batch_size, NOISE_DIM], seed=tf.stack([self._config.seed, step])
        )
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.slice(noise, [replica * rows, 0], [rows, NOISE_DIM])

    def _average_weights(self) -> None:
        """Moves each average towards its weight: average <- decay · average + (1 - decay) · weight.

        The decay rises from small values, as tf.train.ExponentialMovingAverage's does with ``num_updates``, so that
        the initial weights are soon forgotten.
        """
        steps = tf.cast(self.generator_optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self._config.recipe.ema_decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self.averages, self.generator.trainable_variables, strict=True):
            self._strategy.extended.update(
                average, lambda a, w: a.assign_add((1 - decay) * (w - a)), args=(weight.value,)
            )

    def interval_means(self) -> list[float]:
        """METRICS, each the mean over the steps since the last call."""
        *sums, steps = self.interval.numpy().tolist()
        self.interval.assign(tf.zeros_like(self.interval))
        return [total / steps for total in sums]

    def averaged_generator(self) -> Any:
        """The generator that a run is judged and served by, as a float32 copy.

        Its weights are the average where the recipe keeps one (with batch-normalisation statistics of its own), and
        otherwise the last ones.
        """
        recipe = self._config.recipe
        generator = float32_copy(build_generator, self.generator.get_weights())
        if not recipe.ema_decay:
            return generator
        for weight, average in zip(generator.trainable_variables, self.averages, strict=True):
            weight.assign(average)
        rows = STATISTICS_BATCHES * recipe.batch_size
        noise = tf.random.stateless_normal([rows, NOISE_DIM], seed=[self._config.seed, -1])
        set_batch_statistics(generator, noise, recipe.batch_size)
        return generator

    def last_discriminator(self) -> Any:
        """The discriminator as it stands, as a float32 copy."""
        return float32_copy(lambda: build_discriminator(self._config.recipe.dropout), self.discriminator.get_weights())
