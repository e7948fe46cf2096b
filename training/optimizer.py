"""Adam by TensorFlow's fused kernel, which passes over each weight and its moments once."""

from typing import Any

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras ships no types
    """Keras's Adam (Kingma & Ba 2015, as rewritten below algorithm 1) without AMSGrad: its variables and updates."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves a variable (tf.Variable) by its gradient, both float32 of the same shape."""
        step = tf.cast(self.iterations.value + 1, tf.float32)
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
