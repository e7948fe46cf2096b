"""The generator's inference graph.

The layer with most of the products goes through the frequency domain, those with stride 2 are sub-pixel convolutions.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import IMAGES, NOISE, NOISE_DIM, PIXEL_SCALE, SIGNATURE
from training.convolution import STRIDE, split_phases
from training.inference.folding import folded
from training.inference.module import InferenceModule
from training.inference.spectral import SpectralConvolution
from training.networks import LEAK

SIDE: Final = 7
NOISE_SPEC: Final = tf.TensorSpec([None, NOISE_DIM], tf.float32, NOISE)


@dataclass(frozen=True)
class GeneratorWeights:
    """A generator without its batch normalisation, in float64.

    Attributes:
        dense: [100, 49 · 256] and its biases [49 · 256].
        first: [5, 5, 128, 256] of the transposed convolution with stride 1, and its biases [128].
        second: [5, 5, 64, 128] of that with stride 2, and its biases [64].
        last: [5, 5, 1, 64] of the last one, with stride 2.
    """

    dense: tuple[NDArray[np.float64], NDArray[np.float64]]
    first: tuple[NDArray[np.float64], NDArray[np.float64]]
    second: tuple[NDArray[np.float64], NDArray[np.float64]]
    last: NDArray[np.float64]

    @classmethod
    def of(cls, generator: Any) -> "GeneratorWeights":
        """Takes the trained Keras network."""
        weighted = [layer for layer in generator.layers if isinstance(layer, layers.Dense | layers.Conv2DTranspose)]
        norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
        dense, first, second, last = (np.asarray(layer.kernel, np.float64) for layer in weighted)
        dense_norm, first_norm, second_norm = (folded(norm) for norm in norms)
        return cls(
            (dense * dense_norm.scale, dense_norm.bias),
            (first * first_norm.scale[:, None], first_norm.bias),
            (second * second_norm.scale[:, None], second_norm.bias),
            last,
        )


def generator_module(generator: Any) -> InferenceModule:
    """The trained Keras network as noise float32 [N, 100] -> pixels uint8 [N, 28, 28, 1]."""
    weights = GeneratorWeights.of(generator)
    kernel, bias = weights.dense
    dense_kernel = np.float32(kernel.reshape(NOISE_DIM, SIDE**2, -1).transpose(1, 0, 2))  # a product for each position
    dense_bias = np.float32(bias.reshape(SIDE**2, 1, -1))
    kernel, first_bias = weights.first
    first = SpectralConvolution(kernel, SIDE, transposed=True)
    kernel, second_bias = weights.second
    second_kernel = sub_pixel(kernel)
    last_kernel = sub_pixel(weights.last)

    def graph(noise: Any) -> dict[str, Any]:
        count = tf.shape(noise)[0]
        x = tf.nn.leaky_relu(tf.matmul(at_least_one(noise), dense_kernel) + dense_bias, LEAK)  # [49, N, 256]
        x = tf.nn.leaky_relu(tf.nn.bias_add(first(x), np.float32(first_bias)), LEAK)
        x = tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, SIDE, SIDE, len(first_bias)])
        x = tf.nn.conv2d(x, second_kernel, strides=1, padding="SAME")
        x = tf.nn.leaky_relu(tf.nn.bias_add(x, np.float32(np.tile(second_bias, STRIDE**2))), LEAK)
        x = tf.nn.depth_to_space(x, STRIDE)  # [N, 14, 14, 64]
        x = tf.nn.conv2d(x, last_kernel, strides=1, padding="SAME")
        return {IMAGES: to_pixels(tf.nn.depth_to_space(x, STRIDE))[:count]}

    return InferenceModule({SIGNATURE: tf.function(graph, input_signature=[NOISE_SPEC])}, [first.spectra])


def at_least_one(noise: Any) -> Any:
    """Makes float32 [0, 100] float32 [1, 100]: TensorFlow's fused oneDNN convolution fails on no images at all."""
    return tf.pad(noise, [[0, tf.cast(tf.equal(tf.shape(noise)[0], 0), tf.int32)], [0, 0]])


def sub_pixel(kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """The kernel of the sub-pixel convolution (Shi et al. 2016) that equals a transposed one with stride 2.

    Args:
        kernel: [k, k, filters, channels] of the transposed convolution; k is odd.

    Returns:
        [(k+1)/2, (k+1)/2, channels, 4·filters] of a convolution with stride 1, whose output is depth_to_space's input.
    """
    phases: NDArray[np.float64] = split_phases(tf.constant(kernel)).numpy()
    # A stride-1 transposed convolution is the convolution with the kernel turned by 180° and its channels swapped.
    return phases[::-1, ::-1].swapaxes(2, 3).astype(np.float32)


def to_pixels(x: Any) -> Any:
    """Before the tanh, float32 [N, 28, 28, 1], to pixels uint8 of the same shape."""
    # tanh(x) = 2 · sigmoid(2x) - 1, so this is tanh(x) · PIXEL_SCALE + PIXEL_SCALE, and within 0 … 255. The tanh of
    # TensorFlow 2.19 isn't 2.20's to the last bit, which tips a pixel in 500,000 over its rounding; its sigmoid is.
    return tf.cast(tf.round(tf.sigmoid(2.0 * x) * (2 * PIXEL_SCALE)), tf.uint8)
