"""The networks' layers, computed by the shortest way.

They are Keras's layers: the same weights, shapes and names, and the same results up to the rounding of the dtype.

Convolutions go through the frequency domain on a CPU. A 5×5 kernel on a 7×7 map takes 25 products for each output and pair of
channels, a third of them with padding. By the convolution theorem (for networks: Mathieu, Henaff & LeCun 2014) it takes one
complex product for each frequency instead, and a real 9×9 map has 41 of them: 164 real products for the whole map, where
the direct way has 1,225. The transforms are so short that they are plain matrix products. A stride of 2 is a stride of 1 between
the four phases of the larger map and the smaller one (Shi et al. 2016). In float32 the error is the smaller one here, because
fewer products are summed. On a GPU, Keras's own kernels are used.

Batch normalisation goes through TensorFlow's fused kernel.
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


def _split_phases(kernel: Any) -> Any:
    """Cuts a kernel for stride 2 into the four for stride 1 that act between the phases of the larger map and the other.

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
    forward, of_kernel, inverse = (tf.constant(each, x.dtype) for each in _transforms(side, taps, transposed))
    frequencies = forward.shape[0] // 2
    rows = tf.shape(x)[0]
    # Position first, so that each transform is one product with everything else in the columns.
    x = tf.reshape(tf.transpose(tf.reshape(x, [-1, side**2, channels]), [1, 0, 2]), [side**2, rows * channels])
    x = tf.reshape(forward @ x, [frequencies, 1, 2 * rows, channels])
    kernel = tf.reshape(of_kernel @ tf.reshape(kernel, [taps**2, -1]), [frequencies, 2, *matrix])
    # Real and imaginary part of the one times those of the other; the inverse adds them up as complex numbers do.
    products = tf.reshape(tf.matmul(x, kernel, transpose_b=transposed), [4 * frequencies, rows * filters])
    y = tf.reshape(inverse @ products, [side**2, rows, filters])
    return tf.reshape(tf.transpose(y, [1, 0, 2]), [rows, side, side, filters])


@cache
def _transforms(
    side: int, taps: int, transposed: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The discrete Fourier transform of a padded map, of a kernel, and the way back, as matrices.

    A map of this side, padded by half a kernel, is long enough for the circular convolution not to reach round.

    Returns:
        float64 [2·frequencies, side²], [2·frequencies, taps²], [side², 4·frequencies], where a frequency has
        its real part, then its imaginary part; the products in the last are ordered by the kernel's part, then the
        map's.
    """
    half = taps // 2
    length = side + half
    frequencies = [
        (u, v) for u in range(length) for v in range(length) if (u, v) <= (-u % length, -v % length)
    ]  # The others are their conjugates, since maps and kernels are real.

    def waves(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        u, v = np.array(frequencies).T[:, :, None, None]
        angles = 2 * np.pi * (u * positions[:, None] + v * positions) / length
        return np.stack([np.cos(angles), -np.sin(angles)], axis=1).reshape(len(frequencies), 2, -1)

    # What Keras calls a convolution is a correlation; its transposed convolution is one in the textbook's sense.
    offsets = np.arange(taps) - half
    forward, of_kernel = waves(np.arange(side)), waves(offsets if transposed else -offsets)
    weights = [1 if (u, v) == (-u % length, -v % length) else 2 for u, v in frequencies]
    real, imaginary = (forward * np.reshape(weights, (-1, 1, 1)) / length**2).transpose(1, 0, 2)
    inverse = np.stack([real, imaginary, imaginary, -real], axis=1)
    return forward.reshape(-1, side**2), of_kernel.reshape(-1, taps**2), inverse.reshape(-1, side**2).T.copy()
