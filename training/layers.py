"""The networks' layers, computed by the shortest way.

They are Keras's layers: the same weights, shapes and names, and the same results up to the rounding of the dtype.

Convolutions go through the frequency domain on a CPU. A 5×5 kernel on a 7×7 map takes 25 products for each output and
pair of channels, a third of them with padding. By the convolution theorem (for networks: Mathieu, Henaff & LeCun 2014)
it takes one complex product for each frequency instead, and a real 9×9 map has 41 of them: 121 real products for the
whole map, where the direct way has 1,225. The transforms are so short that they are plain matrix products. A stride of
2 is a stride of 1 between the four phases of the larger map and the smaller one (Shi et al. 2016). In float32 the error
is no larger than the direct way's, since fewer products are summed. On a GPU, Keras's own kernels are used.

Batch normalisation goes through TensorFlow's fused kernel, and dropout draws half as many random bits.
"""

from functools import cache
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

STRIDE: Final = 2


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
        outputs = _convolve(phases, _split_phases(kernel), transposed=False)
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
        return tf.nn.depth_to_space(_convolve(inputs, _split_phases(kernel), transposed=True), STRIDE)


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


def _split_phases(kernel: Any) -> Any:
    """Cuts a kernel for stride 2 into those for stride 1 between the four phases of the larger map and the smaller one.

    "Same" padding puts one pixel more after the larger map than before it, which zeros before the kernel even out.

    Args:
        kernel: float [k, k, a, b], k odd.

    Returns:
        float [(k+1)/2, (k+1)/2, 4·a, b].
    """
    side, _, a, b = kernel.shape
    taps = (side + 1) // STRIDE
    split = tf.reshape(tf.pad(kernel, [[1, 0], [1, 0], [0, 0], [0, 0]]), [taps, STRIDE, taps, STRIDE, a, b])
    return tf.reshape(tf.transpose(split, [0, 2, 1, 3, 4, 5]), [taps, taps, STRIDE**2 * a, b])


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
    of_map, of_kernel, back = (tf.constant(each, x.dtype) for each in _transforms(side, taps, transposed))
    rows = tf.shape(x)[0]
    # Position first, so that each transform is one product with everything else in the columns.
    x = tf.reshape(tf.transpose(tf.reshape(x, [-1, side**2, channels]), [1, 0, 2]), [side**2, rows * channels])
    x = tf.reshape(of_map @ x, [-1, rows, channels])
    kernel = tf.reshape(of_kernel @ tf.reshape(kernel, [taps**2, -1]), [-1, *matrix])
    products = tf.reshape(tf.matmul(x, kernel, transpose_b=transposed), [-1, rows * filters])
    y = tf.reshape(back @ products, [side**2, rows, filters])
    return tf.reshape(tf.transpose(y, [1, 0, 2]), [rows, side, side, filters])


@cache
def _transforms(
    side: int, taps: int, transposed: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The convolution as products: of_map @ x times of_kernel @ kernel, elementwise, and ``back`` of that.

    They are discrete Fourier transforms, whose length leaves a map's padding out of reach of the circular
    convolution. The product of two complex numbers is made of three real ones (Gauss): with x = a + bi and k = c + di,
    (a + b) · c, b · (c + d) and a · (d - c) give its real part, first less second, and its imaginary part, first plus
    third. Frequencies that are their own conjugates have no imaginary part and take one product.

    Returns:
        float64 [products, side²], [products, taps²] and [side², products].
    """
    half = taps // 2
    length = side + half
    # What Keras calls a convolution is a correlation; its transposed convolution is one in the textbook's sense.
    offsets = np.arange(taps) - half if transposed else half - np.arange(taps)
    of_map, of_kernel, back = [], [], []
    for u in range(length):
        for v in range(length):
            conjugate = (-u % length, -v % length)
            if (u, v) > conjugate:
                continue  # Maps and kernels are real: this one is the other's mirror image.
            a, b = _wave(u, v, np.arange(side), length)
            c, d = _wave(u, v, offsets, length)
            real, imaginary = a / length**2, b / length**2
            if (u, v) == conjugate:
                of_map += [a]
                of_kernel += [c]
                back += [real]
            else:
                of_map += [a + b, b, a]
                of_kernel += [c, c + d, d - c]
                back += [2 * (real + imaginary), -2 * real, 2 * imaginary]
    return np.array(of_map), np.array(of_kernel), np.array(back).T.copy()


def _wave(u: int, v: int, positions: NDArray[np.int64], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real and imaginary part of exp(-2πi (u·y + v·x) / length) over a square of positions: float64 [positions²]."""
    angles = 2 * np.pi * (u * positions[:, None] + v * positions).ravel() / length
    return np.cos(angles), -np.sin(angles)
