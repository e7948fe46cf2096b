"""The generator's inference graph with its convolutions in bfloat16, for CPUs that multiply matrices of it (AMX).

They are direct: in the frequency domain, in OpenVINO, an image alone came out otherwise than in a batch, and further
from the network. The dense layer, a fortieth of the products, stays in float32: in bfloat16 the furthest pixel would be
twice as far off, and depend on its batch on CPUs that have AVX-512 and no bfloat16.
"""

from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import IMAGES, SIGNATURE
from training.convolution import STRIDE
from training.inference.generator import NOISE_SPEC, SIDE, GeneratorWeights, at_least_one, sub_pixel, to_pixels
from training.inference.module import InferenceModule
from training.networks import LEAK

BFLOAT16: Final = tf.bfloat16.as_numpy_dtype


def bfloat16_generator_module(generator: Any) -> InferenceModule:
    """The trained Keras network as noise float32 [N, 100] -> pixels uint8 [N, 28, 28, 1]."""
    weights = GeneratorWeights.of(generator)
    dense_kernel, dense_bias = (each.astype(np.float32) for each in weights.dense)
    kernel, bias = weights.first
    # A stride-1 transposed convolution is the convolution with the kernel turned by 180° and its channels swapped.
    first = (kernel[::-1, ::-1].swapaxes(2, 3).astype(BFLOAT16), bias.astype(BFLOAT16))
    kernel, bias = weights.second
    second = (sub_pixel(kernel).astype(BFLOAT16), np.tile(bias, STRIDE**2).astype(BFLOAT16))
    last = sub_pixel(weights.last).astype(BFLOAT16)

    def convolution(x: Any, kernel: NDArray[Any]) -> Any:
        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")

    def activate(x: Any, bias: NDArray[Any]) -> Any:
        return tf.nn.leaky_relu(tf.nn.bias_add(x, bias), LEAK)

    def graph(noise: Any) -> dict[str, Any]:
        count = tf.shape(noise)[0]
        x = activate(tf.matmul(at_least_one(noise), dense_kernel), dense_bias)
        x = tf.reshape(tf.cast(x, tf.bfloat16), [-1, SIDE, SIDE, first[0].shape[2]])
        for kernel, bias in (first, second):
            x = activate(convolution(x, kernel), bias)
        x = convolution(tf.nn.depth_to_space(x, STRIDE), last)
        return {IMAGES: to_pixels(tf.cast(tf.nn.depth_to_space(x, STRIDE), tf.float32))[:count]}

    return InferenceModule({SIGNATURE: tf.function(graph, input_signature=[NOISE_SPEC])})
