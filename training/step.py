"""One training step: both networks, both optimisers, on one replica or many."""

from typing import Any, Final

import keras
import tensorflow as tf

from serving.contract import NOISE_DIM
from training.config import ConfigError, TrainingConfig
from training.losses import LOSSES, slope_penalty
from training.metrics import METRICS
from training.networks import build_discriminator, build_generator, float32_copy, set_batch_statistics
from training.optimizer import Adam

STATISTICS_BATCHES: Final = 8
"""Batches of noise from which the averaged generator's batch-normalisation statistics are estimated."""


class Trainer(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The networks, their optimisers and the step that trains them, under a distribution strategy.

    Everything that a step changes is a variable of this object, so a checkpoint of it is the whole state.

    Attributes:
        generator: noise -> images, the weights being trained.
        discriminator: images -> logits.
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
        with tf.GradientTape() as tape:
            fakes = self.generator(self._noise(len(images)), training=True)
        d_gradients, fakes_gradient, metrics = self._judge(images, fakes)
        g_variables = self.generator.trainable_variables
        g_gradients = tape.gradient(fakes, g_variables, output_gradients=fakes_gradient)
        self.generator_optimizer.apply(g_gradients, g_variables)
        self.discriminator_optimizer.apply(d_gradients, self.discriminator.trainable_variables)
        return metrics

    def _judge(self, reals: Any, fakes: Any) -> tuple[list[Any], Any, Any]:
        """Passes all images through the discriminator once, forward and back, for both networks' sake.

        A loss's gradient by an image is its derivative by that image's logit times the slope of the logit. So the
        generator needs no way back through the discriminator of its own: the discriminator's way, or its penalty's,
        has the slopes already.

        Returns:
            What the discriminator's loss gives its weights; what the generator's loss gives the generated images;
            METRICS. All are sums over this replica's images, divided by the whole batch's number, since they are
            summed over replicas.
        """
        recipe = self._config.recipe
        loss = LOSSES[recipe.loss]
        images = tf.concat([reals, fakes], axis=0)
        d_variables = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            if recipe.gradient_penalty:
                with tf.GradientTape() as slope_tape:
                    slope_tape.watch(images)
                    logits = self.discriminator(images, training=True)[:, 0]
                slopes = slope_tape.gradient(logits, images)
                penalty = recipe.gradient_penalty * tf.reduce_sum(slope_penalty(slopes))
            else:
                tape.watch(images)
                logits = self.discriminator(images, training=True)[:, 0]
                penalty = 0.0
            objective = (tf.reduce_sum(loss.discriminator(*tf.split(logits, 2))) + penalty) / recipe.batch_size

        real_logits, fake_logits = tf.split(logits, 2)
        with tf.GradientTape(persistent=True) as loss_tape:
            loss_tape.watch(fake_logits)
            g_loss = tf.reduce_sum(loss.generator(real_logits, fake_logits)) / recipe.batch_size
            d_loss = tf.reduce_sum(loss.discriminator(real_logits, fake_logits)) / recipe.batch_size
        g_derivative = loss_tape.gradient(g_loss, fake_logits)
        if recipe.gradient_penalty:
            d_gradients = tape.gradient(objective, d_variables)
        else:
            d_gradients, slopes = tape.gradient(objective, [d_variables, images])
            g_derivative = tf.math.divide_no_nan(g_derivative, loss_tape.gradient(d_loss, fake_logits))
        fakes_gradient = g_derivative[:, None, None, None] * tf.split(slopes, 2)[1]

        # A relativistic discriminator's logits have no zero of their own: the mean of all stands for it.
        middle = 0.0
        if recipe.loss == "relativistic":
            replicas = tf.distribute.get_replica_context()
            middle = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(logits))
        right_on_real = tf.reduce_sum(tf.cast(real_logits > middle, tf.float32)) / recipe.batch_size
        right_on_fake = tf.reduce_sum(tf.cast(fake_logits <= middle, tf.float32)) / recipe.batch_size
        return d_gradients, fakes_gradient, tf.stack([g_loss, d_loss, right_on_real, right_on_fake])

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
