"""The classifier's inference graphs."""

from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

from serving.contract import FEATURES, IMAGE_SHAPE, IMAGES, PIXEL_SCALE, PROBABILITIES, SIGNATURE
from training.inference.folding import folded
from training.inference.module import InferenceModule

IMAGES_SPEC = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)


def classifier_module(classifier: Any) -> InferenceModule:
    """The trained Keras network as images uint8 [N, 28, 28, 1] -> probabilities [N, 10], or features [N, 128]."""
    weighted = [layer for layer in classifier.layers if isinstance(layer, layers.Conv2D | layers.Dense)]
    norms = [layer for layer in classifier.layers if isinstance(layer, layers.BatchNormalization)]
    *hidden, last = weighted
    merged: list[tuple[Any, Any]] = []
    for layer, norm in zip(hidden, norms, strict=True):
        scale, bias = folded(norm)
        merged.append((np.float32(np.asarray(layer.kernel, np.float64) * scale), np.float32(bias)))
    *convolutions, (dense_kernel, dense_bias) = merged
    last_kernel, last_bias = np.asarray(last.kernel), np.asarray(last.bias)
    # The steps between the convolutions, in the network's own order.
    pooled = [
        isinstance(after, layers.MaxPooling2D)
        for layer, after in zip(classifier.layers, classifier.layers[3:], strict=False)
        if isinstance(layer, layers.Conv2D)
    ]

    # Both signatures call this one function, so that the weights are saved once.
    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def features(images: Any) -> dict[str, Any]:
        x = tf.cast(images, tf.float32) / PIXEL_SCALE - 1.0
        for (kernel, bias), pool in zip(convolutions, pooled, strict=True):
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), bias))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pool else x
        x = tf.reshape(x, [-1, dense_kernel.shape[0]])
        return {FEATURES: tf.nn.relu(tf.nn.bias_add(tf.matmul(x, dense_kernel), dense_bias))}

    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def probabilities(images: Any) -> dict[str, Any]:
        logits = tf.nn.bias_add(tf.matmul(features(images)[FEATURES], last_kernel), last_bias)
        return {PROBABILITIES: tf.nn.softmax(logits)}

    return InferenceModule({SIGNATURE: probabilities, FEATURES: features})
