"""The generator as it is served: the same function as the network, laid out so that it takes half the time.

Batch normalisation is folded into the weights before it (in float64, rounded once). The layer with most of the products
goes through the frequency domain, those with stride 2 are sub-pixel convolutions (Shi et al. 2016). All weights are
constants. docs/performance.md lists the steps.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import IMAGES, NOISE, NOISE_DIM, PIXEL_SCALE
from training.gan.convolution import STRIDE, four_product_transforms, split_phases
from training.gan.networks import LEAK

SIDE: Final = 7
NOISE_SPEC: Final = tf.TensorSpec([None, NOISE_DIM], tf.float32, NOISE)


def folded(generator: Any) -> list[tuple[NDArray[np.float64], Any]]:
    """The kernels and biases of a trained Keras generator, with batch normalisation folded in; the last has no bias."""
    weighted = [layer for layer in generator.layers if isinstance(layer, layers.Dense | layers.Conv2DTranspose)]
    norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
    *kernels, last = (np.asarray(layer.kernel, np.float64) for layer in weighted)
    found: list[tuple[NDArray[np.float64], Any]] = []
    for kernel, norm in zip(kernels, norms, strict=True):
        gamma, beta, mean, variance = (np.asarray(weights, np.float64) for weights in norm.get_weights())
        scale = gamma / np.sqrt(variance + norm.epsilon)
        channels_last = kernel.ndim == 2  # A transposed convolution's kernel has the channels before the last axis.
        found.append((kernel * (scale if channels_last else scale[:, None]), beta - mean * scale))
    return [*found, (last, None)]


def generator_graph(generator: Any) -> Any:
    """The trained Keras network as a tf.function: noise float32 [N, 100] -> pixels uint8 [N, 28, 28, 1]."""
    (kernel, bias), (first_kernel, first_bias), (second_kernel, second_bias), (last_kernel, _) = folded(generator)
    # A product for each position. The additional dimension is for OpenVINO, which 2026.4 computes wrongly without it.
    dense_kernel = np.float32(kernel.reshape(NOISE_DIM, SIDE**2, 1, -1).transpose(1, 2, 0, 3))
    dense_bias = np.float32(bias.reshape(SIDE**2, 1, 1, -1))
    first = spectral_convolution(first_kernel, SIDE)
    second_phases, last_phases = sub_pixel(second_kernel), sub_pixel(last_kernel)

    @tf.function(input_signature=[NOISE_SPEC])  # type: ignore[untyped-decorator]
    def generate(noise: Any) -> dict[str, Any]:
        # TensorFlow Serving does not compare shapes with the signature.
        noise = tf.ensure_shape(noise, NOISE_SPEC.shape)
        count = tf.shape(noise)[0]
        # TensorFlow's fused oneDNN convolution fails on no images at all: one row more then.
        noise = tf.pad(noise, [[0, tf.cast(tf.equal(count, 0), tf.int32)], [0, 0]])
        x = tf.matmul(noise[None, None], dense_kernel)  # [49, 1, N, 256]
        x = tf.nn.leaky_relu(x + dense_bias, LEAK)
        x = tf.nn.leaky_relu(tf.nn.bias_add(first(x), np.float32(first_bias)), LEAK)
        x = tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, SIDE, SIDE, len(first_bias)])
        x = tf.nn.conv2d(x, second_phases, strides=1, padding="SAME")
        x = tf.nn.leaky_relu(tf.nn.bias_add(x, np.float32(np.tile(second_bias, STRIDE**2))), LEAK)
        x = tf.nn.depth_to_space(x, STRIDE)  # [N, 14, 14, 64]
        x = tf.nn.depth_to_space(tf.nn.conv2d(x, last_phases, strides=1, padding="SAME"), STRIDE)
        # tanh(x) = 2 · sigmoid(2x) - 1, so this is tanh(x) · PIXEL_SCALE + PIXEL_SCALE, and within 0 … 255. The tanh of
        # TensorFlow 2.19 isn't 2.20's to the last bit, which tips a pixel in 500,000 over its rounding; its sigmoid is.
        return {IMAGES: tf.cast(tf.round(tf.sigmoid(2.0 * x) * (2 * PIXEL_SCALE)), tf.uint8)[:count]}

    return generate


def spectral_convolution(kernel: NDArray[np.float64], side: int) -> Callable[[Any], Any]:
    """A transposed convolution with stride 1 and "same" padding, as products in the frequency domain.

    From a kernel [k, k, filters, channels], k odd, to a function from float32 [side², N, channels] to float32 [side²,
    N, filters]. The positions of the maps come first, so each transform is one matrix product.
    """
    of_map, of_kernel, back = (each.astype(np.float32) for each in four_product_transforms(side, len(kernel), True))
    taps, _, filters, channels = kernel.shape
    matrix = tf.constant(kernel.swapaxes(2, 3).reshape(taps**2, -1), tf.float32)
    frequencies = len(of_map) // 2
    spectra = tf.matmul(of_kernel, matrix).numpy().reshape(frequencies, 2, channels, filters)

    def convolve(maps: Any) -> Any:
        x = tf.matmul(of_map, tf.reshape(maps, [side**2, -1]))
        # Real and imaginary parts of the maps are rows of one product, those of the kernel two products.
        x = tf.matmul(tf.reshape(x, [frequencies, 1, -1, channels]), spectra)
        x = tf.matmul(back, tf.reshape(x, [4 * frequencies, -1]))
        return tf.reshape(x, [side**2, -1, filters])

    return convolve


def sub_pixel(kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """The kernel of the sub-pixel convolution that equals a transposed one with stride 2, before depth_to_space.

    From [k, k, filters, channels], k odd, to [(k+1)/2, (k+1)/2, channels, 4·filters].
    """
    phases: NDArray[np.float64] = split_phases(tf.constant(kernel)).numpy()
    # A stride-1 transposed convolution is the convolution with the kernel turned by 180° and its channels swapped.
    return phases[::-1, ::-1].swapaxes(2, 3).astype(np.float32)
