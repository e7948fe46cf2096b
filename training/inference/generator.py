"""The generator's inference graph.

All of it runs on maps of 7×7 positions, the larger maps' phases being channels, with the positions first.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE, IMAGE_SIDE, IMAGES, NOISE, NOISE_DIM, PIXEL_SCALE, SIGNATURE
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
    kernel, bias = weights.second
    second = SpectralConvolution(split_phases(tf.constant(kernel)).numpy(), SIDE, transposed=True)
    second_bias = np.tile(bias, STRIDE**2)
    last = np.float32(weights.last.reshape(-1, weights.last.shape[-1]).T)  # [64, 25]

    def graph(noise: Any) -> dict[str, Any]:
        x = tf.nn.leaky_relu(tf.matmul(noise, dense_kernel) + dense_bias, LEAK)  # [49, N, 256]
        x = tf.nn.leaky_relu(tf.nn.bias_add(first(x), np.float32(first_bias)), LEAK)  # [49, N, 128]
        x = tf.nn.leaky_relu(tf.nn.bias_add(second(x), np.float32(second_bias)), LEAK)  # [49, N, 4 · 64]
        return {IMAGES: to_pixels(spread(tf.matmul(tf.reshape(x, [-1, len(last)]), last)))}

    return InferenceModule(
        {SIGNATURE: tf.function(graph, input_signature=[NOISE_SPEC])}, [first.spectra, second.spectra]
    )


def spread(taps: Any) -> Any:
    """The last transposed convolution after its products: each pixel of the 14×14 map spreads 5×5 over the image.

    Rows and columns spread alike, so an image is A @ taps @ Aᵀ, where A has a one for each row of the image and what
    falls on it.

    Args:
        taps: float32 [7 · 7 · N · 2 · 2, 5 · 5]; positions, then images, then phases.

    Returns:
        float32 [N, 28, 28].
    """
    width = 5
    taps = tf.reshape(taps, [SIDE, SIDE, -1, STRIDE, STRIDE, width, width])
    taps = tf.reshape(tf.transpose(taps, [2, 0, 3, 5, 1, 4, 6]), [-1, SIDE * STRIDE * width, SIDE * STRIDE * width])
    rows = STRIDE * np.arange(SIDE * STRIDE)[:, None] + np.arange(width) - 1  # "same" crops one row before, two after
    falls_on = np.float32(np.arange(IMAGE_SIDE)[:, None] == rows.ravel())
    return tf.matmul(tf.matmul(falls_on, taps), falls_on, transpose_b=True)


def to_pixels(x: Any) -> Any:
    """Before the tanh, float32 [N, 784 in any shape], to pixels uint8 [N, 28, 28, 1]."""
    # Clamped, then rounded: tanh does reach +1.0, which is 255.
    pixels = tf.clip_by_value(tf.tanh(x) * PIXEL_SCALE + PIXEL_SCALE, 0.0, 255.0)
    return tf.reshape(tf.cast(tf.round(pixels), tf.uint8), [-1, *IMAGE_SHAPE])
