"""Keras's two convolution layers, trained faster on a CPU. A reader of the GAN can skip this module.

The layers have Keras's weights, shapes and names, and give the same results up to rounding. A 5×5 kernel on a 7×7 map
takes 1,225 products for each pair of channels. By the convolution theorem (Mathieu, Henaff & LeCun 2014), 123 real
products do, and two short transforms, which are plain matrix products. A convolution with stride 2 is one with stride 1
between the four phases of the larger map and the smaller one (Shi et al. 2016).
"""

from functools import cache
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STRIDE: Final = 2


@cache
def _on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]  # Keras ships no types
    """Keras's Conv2D with an odd kernel, stride 2 and "same" padding, on maps with even sides."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """float [N, 2·side, 2·side, channels] -> float [N, side, side, filters], in the compute dtype."""
        if not training or _on_gpu():
            return super().call(inputs)
        phases = tf.nn.space_to_depth(inputs, STRIDE)
        kernel = tf.cast(self.kernel.value, inputs.dtype)
        outputs = _convolve(phases, split_phases(kernel), transposed=False)
        return self.activation(tf.nn.bias_add(outputs, tf.cast(self.bias.value, inputs.dtype)))


class Conv2DTranspose(keras.layers.Conv2DTranspose):  # type: ignore[misc]
    """Keras's Conv2DTranspose with an odd kernel, stride 1 or 2, "same" padding and no bias."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """float [N, side, side, channels] -> float [N, stride·side, stride·side, filters], in the compute dtype."""
        if not training or _on_gpu():
            return super().call(inputs)
        kernel = tf.cast(self.kernel.value, inputs.dtype)  # [height, width, filters, channels]
        if self.strides == (1, 1):
            return _convolve(inputs, kernel, transposed=True)
        return tf.nn.depth_to_space(_convolve(inputs, split_phases(kernel), transposed=True), STRIDE)


def _convolve(x: Any, kernel: Any, *, transposed: bool) -> Any:
    """The stride-1 convolution with "same" padding of float [N, side, side, channels], through the frequency domain.

    ``kernel``: float [k, k, channels, filters], or [k, k, filters, channels] if transposed; k odd.
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


def split_phases(kernel: Any) -> Any:
    """Cuts a kernel for stride 2, [k, k, a, b], into those for stride 1 of the phases, [(k+1)/2, (k+1)/2, 4·a, b].

    "Same" padding puts one pixel more after the larger map than before it. Zeros before the kernel compensate it.
    """
    side, _, a, b = kernel.shape
    taps = (side + 1) // STRIDE
    split = tf.reshape(tf.pad(kernel, [[1, 0], [1, 0], [0, 0], [0, 0]]), [taps, STRIDE, taps, STRIDE, a, b])
    return tf.reshape(tf.transpose(split, [0, 2, 1, 3, 4, 5]), [taps, taps, STRIDE**2 * a, b])


@cache
def three_product_transforms(side: int, taps: int, transposed: bool) -> tuple[Floats, Floats, Floats]:
    """The stride-1 convolution with "same" padding, with three real products for each frequency (Gauss).

    It is back @ ((of_map @ x) · (of_kernel @ kernel)): float64 [products, side²], [products, taps²], [side², products].
    With x = a + bi and k = c + di, (a + b) · c, b · (c + d) and a · (d - c) give the product's real part, first less
    second, and its imaginary part, first plus third.
    """
    (a, b), (c, d), (real, imaginary) = _spectra(side, taps, transposed)
    back = np.concatenate([real + imaginary, -real, imaginary])
    return np.concatenate([a + b, b, a]), np.concatenate([c, c + d, d - c]), back.T.copy()


@cache
def four_product_transforms(side: int, taps: int, transposed: bool) -> tuple[Floats, Floats, Floats]:
    """The same convolution with four real products for each frequency: a third less of the kernel to read from memory.

    The matrices are float64 [2·frequencies, side²], [2·frequencies, taps²] and [side², 4·frequencies]. Each frequency
    has two rows of the map's transform, a and b, and two of the kernel's, c and d, and all four products of them. Their
    order is frequency, row of the kernel's transform, row of the map's.
    """
    map_rows, kernel_rows, (real, imaginary) = _spectra(side, taps, transposed)
    of_map, of_kernel = (rows.swapaxes(0, 1).reshape(-1, rows.shape[2]) for rows in (map_rows, kernel_rows))
    back = np.stack([real, imaginary, imaginary, -real], axis=1).reshape(-1, side**2)
    return of_map, of_kernel, back.T.copy()


def _spectra(side: int, taps: int, transposed: bool) -> tuple[Floats, Floats, Floats]:
    """The Fourier transforms of real maps and kernels, and the way back, at one frequency of each conjugate pair.

    [2, frequencies, side² or taps²]: real parts, then imaginary parts.
    """
    half = taps // 2
    length = side + half  # A map's padding is out of reach of the circular convolution.
    numbers = np.arange(length**2)
    u, v = np.divmod(numbers, length)
    conjugates = -u % length * length + -v % length
    kept = np.concatenate([np.flatnonzero(numbers < conjugates), np.flatnonzero(numbers == conjugates)])
    pair_sizes = np.where(kept < conjugates[kept], 2, 1)

    def waves(positions: NDArray[np.int64]) -> Floats:
        """exp(-2πi (u·y + v·x) / length) over a square of positions."""
        y, x = np.repeat(positions, len(positions)), np.tile(positions, len(positions))
        angles = 2 * np.pi * (np.outer(u[kept], y) + np.outer(v[kept], x)) / length
        return np.stack([np.cos(angles), -np.sin(angles)])

    # What Keras calls a convolution is a correlation; its transposed convolution is one in the textbook's sense.
    offsets = np.arange(taps) - half if transposed else half - np.arange(taps)
    of_map = waves(np.arange(side))
    return of_map, waves(offsets), of_map * pair_sizes[:, None] / length**2
