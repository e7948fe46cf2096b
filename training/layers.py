"""The networks' layers, computed by the shortest way.

They are Keras's layers: the same weights, shapes and names, and the same results up to the rounding of the dtype.

Convolutions go through the frequency domain on a CPU (training.convolution): a 5×5 kernel on a 7×7 map takes 121 real
products for each pair of channels, where the direct way has 1,225. A stride of 2 is a stride of 1 between the four
phases of the larger map and the smaller one (Shi et al. 2016). In float32 the error is no larger than the direct way's,
since fewer products are summed. On a GPU, Keras's own kernels are used.

Batch normalisation goes through TensorFlow's fused kernel, and dropout draws half as many random bits.
"""

from functools import cache
from typing import Any

import keras
import tensorflow as tf

from training.convolution import STRIDE, split_phases, three_product_transforms


@cache
def _on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]  # Keras ships no types
    """Keras's Conv2D with an odd kernel, stride 2 and "same" padding, on maps with even sides."""

    def call(self, inputs: Any) -> Any:
        """float [N, 2·side, 2·side, channels] -> float [N, side, side, filters], in the compute dtype."""
        if _on_gpu():
            return super().call(inputs)
        phases = tf.nn.space_to_depth(inputs, STRIDE)
        kernel = tf.cast(self.kernel.value, inputs.dtype)
        outputs = _convolve(phases, split_phases(kernel), transposed=False)
        return self.activation(tf.nn.bias_add(outputs, tf.cast(self.bias.value, inputs.dtype)))


class Conv2DTranspose(keras.layers.Conv2DTranspose):  # type: ignore[misc]
    """Keras's Conv2DTranspose with an odd kernel, stride 1 or 2, "same" padding and no bias."""

    def call(self, inputs: Any) -> Any:
        """float [N, side, side, channels] -> float [N, stride·side, stride·side, filters], in the compute dtype."""
        if _on_gpu():
            return super().call(inputs)
        kernel = tf.cast(self.kernel.value, inputs.dtype)  # [height, width, filters, channels]
        if self.strides == (1, 1):
            return _convolve(inputs, kernel, transposed=True)
        return tf.nn.depth_to_space(_convolve(inputs, split_phases(kernel), transposed=True), STRIDE)


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras's BatchNormalization over the last axis, by TensorFlow's fused kernel while one replica trains."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """float [..., channels] -> the same shape and dtype."""
        if not training or tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.reshape(inputs, [-1, 1, 1, channels]) if len(inputs.shape) == 2 else inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
        )
        # The kernel tells the variance of the population; Keras averages that of the batch.
        rows = tf.cast(tf.size(inputs) // channels, tf.float32)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance * (rows - 1) / rows)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return tf.reshape(outputs, tf.shape(inputs))


class Dropout(keras.layers.Dropout):  # type: ignore[misc]
    """Keras's Dropout with 16 random bits an element instead of 32: the rate is exact to a 65,536th."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """float [N, ...], an even number of elements in each row -> the same shape and dtype."""
        if not training or not self.rate:
            return inputs
        shape = tf.shape(inputs)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        words = tf.random.stateless_uniform([tf.size(inputs) // 2], seed, minval=None, maxval=None, dtype=tf.int32)
        bits = tf.reshape(tf.bitcast(words, tf.uint16), shape)
        kept = tf.cast(bits >= tf.constant(round(self.rate * 2**16), tf.uint16), inputs.dtype)
        return inputs * (kept * tf.cast(1 / (1 - self.rate), inputs.dtype))


def _convolve(x: Any, kernel: Any, *, transposed: bool) -> Any:
    """The stride-1 convolution with "same" padding, through the frequency domain.

    Args:
        x: float [N, side, side, channels].
        kernel: float [k, k, channels, filters], or [k, k, filters, channels] for the transposed convolution; k odd.
        transposed: whether it is the transposed convolution.

    Returns:
        float [N, side, side, filters].
    """
    side, channels = x.shape[1], x.shape[3]
    taps, _, *matrix = kernel.shape
    filters = matrix[0] if transposed else matrix[1]
    of_map, of_kernel, back = (tf.constant(each, x.dtype) for each in three_product_transforms(side, taps, transposed))
    rows = tf.shape(x)[0]
    # Position first, so that each transform is one product with everything else in the columns.
    x = tf.reshape(tf.transpose(tf.reshape(x, [-1, side**2, channels]), [1, 0, 2]), [side**2, rows * channels])
    x = tf.reshape(of_map @ x, [-1, rows, channels])
    kernel = tf.reshape(of_kernel @ tf.reshape(kernel, [taps**2, -1]), [-1, *matrix])
    products = tf.reshape(tf.matmul(x, kernel, transpose_b=transposed), [-1, rows * filters])
    y = tf.reshape(back @ products, [side**2, rows, filters])
    return tf.reshape(tf.transpose(y, [1, 0, 2]), [rows, side, side, filters])
