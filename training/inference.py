"""The inference graphs: the trained networks' functions, laid out for serving.

Batch normalisation is folded into the weights and biases before it (in float64, rounded once), the stride-1
transposed convolution becomes the convolution it equals, weights are constants, and pixels are uint8 on the outside.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import (
    CLASSIFIER,
    DISCRIMINATOR,
    FEATURES,
    IMAGE_SHAPE,
    IMAGES,
    LOGITS,
    NOISE,
    NOISE_DIM,
    PIXEL_SCALE,
    PROBABILITIES,
    SIGNATURE,
)
from training.calibration import Calibration
from training.networks import LEAK

Graph = Callable[[Any], dict[str, Any]]


def inference_graphs(name: str, network: Any, calibration: Calibration | None = None) -> dict[str, Any]:
    """The graphs that are exported for a network.

    Args:
        name: GENERATOR, DISCRIMINATOR or CLASSIFIER.
        network: the trained Keras network, in float32.
        calibration: from the discriminator's logits to probabilities; None: the sigmoid alone.

    Returns:
        Signature name -> a tf.function with one input, by the contract's signatures for that model.
    """
    images = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)
    if name == CLASSIFIER:
        return _classifier_graphs(network, images)
    if name == DISCRIMINATOR:
        graph, spec = _discriminator_graph(network, calibration or Calibration()), images
    else:
        graph, spec = _generator_graph(network), tf.TensorSpec([None, NOISE_DIM], tf.float32, NOISE)
    return {SIGNATURE: tf.function(graph, input_signature=[spec])}


def _generator_graph(generator: Any) -> Graph:
    dense, *convolutions = [
        layer for layer in generator.layers if isinstance(layer, layers.Dense | layers.Conv2DTranspose)
    ]
    norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
    scales, biases = zip(*(_folded(norm) for norm in norms), strict=True)
    first, second, last = (np.asarray(layer.kernel, np.float64) for layer in convolutions)

    dense_kernel = np.float32(np.asarray(dense.kernel, np.float64) * scales[0])
    # A stride-1 transposed convolution is the convolution with the kernel turned by 180° and its channels swapped.
    first_kernel = np.float32(first[::-1, ::-1].transpose(0, 1, 3, 2) * scales[1])
    second_kernel = np.float32(second * scales[2][:, None])  # [height, width, out, in]
    last_kernel = np.float32(last)
    dense_bias, first_bias, second_bias = (np.float32(bias) for bias in biases)

    def graph(noise: Any) -> dict[str, Any]:
        n = tf.shape(noise)[0]
        x = tf.nn.leaky_relu(tf.nn.bias_add(tf.matmul(noise, dense_kernel), dense_bias), LEAK)
        x = tf.reshape(x, [-1, 7, 7, 256])
        x = tf.nn.conv2d(x, first_kernel, strides=1, padding="SAME")
        x = tf.nn.leaky_relu(tf.nn.bias_add(x, first_bias), LEAK)
        x = tf.nn.conv2d_transpose(x, second_kernel, [n, 14, 14, 64], strides=2)
        x = tf.nn.leaky_relu(tf.nn.bias_add(x, second_bias), LEAK)
        x = tf.tanh(tf.nn.conv2d_transpose(x, last_kernel, [n, *IMAGE_SHAPE], strides=2))
        # Clamped, then rounded: tanh does reach +1.0, which is 255.
        pixels = tf.clip_by_value(x * PIXEL_SCALE + PIXEL_SCALE, 0.0, 255.0)
        return {IMAGES: tf.cast(tf.round(pixels), tf.uint8)}

    return graph


def _discriminator_graph(discriminator: Any, calibration: Calibration) -> Graph:
    kernels = [
        (np.asarray(layer.kernel), np.asarray(layer.bias))
        for layer in discriminator.layers
        if isinstance(layer, layers.Conv2D | layers.Dense)
    ]
    *convolutions, (dense_kernel, dense_bias) = kernels

    def graph(images: Any) -> dict[str, Any]:
        x = tf.cast(images, tf.float32) / PIXEL_SCALE - 1.0
        for kernel, bias in convolutions:
            x = tf.nn.conv2d(x, kernel, strides=2, padding="SAME")
            x = tf.nn.leaky_relu(tf.nn.bias_add(x, bias), LEAK)
        x = tf.reshape(x, [-1, dense_kernel.shape[0]])
        logits = tf.nn.bias_add(tf.matmul(x, dense_kernel), dense_bias)[:, 0]
        return {LOGITS: logits, PROBABILITIES: tf.sigmoid(calibration.slope * logits + calibration.offset)}

    return graph


def _classifier_graphs(classifier: Any, images: Any) -> dict[str, Any]:
    weighted = [layer for layer in classifier.layers if isinstance(layer, layers.Conv2D | layers.Dense)]
    norms = [layer for layer in classifier.layers if isinstance(layer, layers.BatchNormalization)]
    *hidden, last = weighted
    folded: list[tuple[Any, Any]] = []
    for layer, norm in zip(hidden, norms, strict=True):
        scale, bias = _folded(norm)
        folded.append((np.float32(np.asarray(layer.kernel, np.float64) * scale), np.float32(bias)))
    *convolutions, (dense_kernel, dense_bias) = folded
    last_kernel, last_bias = np.asarray(last.kernel), np.asarray(last.bias)
    # The steps between the convolutions, in the network's own order.
    pooled = [
        isinstance(after, layers.MaxPooling2D)
        for layer, after in zip(classifier.layers, classifier.layers[3:], strict=False)
        if isinstance(layer, layers.Conv2D)
    ]

    # Both signatures call this one function, so that the weights are saved once.
    @tf.function(input_signature=[images])  # type: ignore[untyped-decorator]
    def features(images: Any) -> dict[str, Any]:
        x = tf.cast(images, tf.float32) / PIXEL_SCALE - 1.0
        for (kernel, bias), pool in zip(convolutions, pooled, strict=True):
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), bias))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pool else x
        x = tf.reshape(x, [-1, dense_kernel.shape[0]])
        return {FEATURES: tf.nn.relu(tf.nn.bias_add(tf.matmul(x, dense_kernel), dense_bias))}

    @tf.function(input_signature=[images])  # type: ignore[untyped-decorator]
    def probabilities(images: Any) -> dict[str, Any]:
        logits = tf.nn.bias_add(tf.matmul(features(images)[FEATURES], last_kernel), last_bias)
        return {PROBABILITIES: tf.nn.softmax(logits)}

    return {SIGNATURE: probabilities, FEATURES: features}


def _folded(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The factor and the bias, float64 [channels] each, that batch normalisation amounts to at inference."""
    gamma, beta, mean, variance = (np.asarray(weights, np.float64) for weights in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
