"""The discriminator's inference graph."""

from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

from serving.contract import IMAGE_SHAPE, IMAGES, LOGITS, PIXEL_SCALE, PROBABILITIES, SIGNATURE
from training.calibration import Calibration
from training.inference.module import InferenceModule
from training.networks import LEAK

IMAGES_SPEC = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)


def discriminator_module(discriminator: Any, calibration: Calibration) -> InferenceModule:
    """The trained Keras network as images uint8 [N, 28, 28, 1] -> logits and probabilities float32 [N]."""
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

    return InferenceModule({SIGNATURE: tf.function(graph, input_signature=[IMAGES_SPEC])})
