"""The generator and the discriminator, as the course that this project implements defines them."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE, NOISE_DIM, PIXEL_SCALE
from serving.files import write_atomically
from training.config import ConfigError
from training.data import Images, in_batches
from training.gan.convolution import Conv2D, Conv2DTranspose

LEAK: Final = 0.2
"""LeakyReLU's slope for negative inputs."""

STATISTICS_BATCHES: Final = 100
"""Batches of noise from which the statistics of averaged weights are estimated. From fewer, the figures are worse."""


def build_generator() -> Any:
    """The generator: noise float32 [N, 100] -> images float32 [N, 28, 28, 1] in -1 … 1 (tanh)."""
    return keras.Sequential(
        [
            keras.Input((NOISE_DIM,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(synchronized=True),
            layers.LeakyReLU(LEAK),
            layers.Reshape((7, 7, 256)),
            Conv2DTranspose(128, 5, strides=1, padding="same", use_bias=False),
            layers.BatchNormalization(synchronized=True),
            layers.LeakyReLU(LEAK),
            Conv2DTranspose(64, 5, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(synchronized=True),
            layers.LeakyReLU(LEAK),
            layers.Conv2DTranspose(1, 5, strides=2, padding="same", use_bias=False),
            layers.Activation("tanh", dtype="float32"),
        ],
        name="generator",
    )


def build_discriminator(dropout: float = 0.0) -> Any:
    """The discriminator: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 1], positive for real."""
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Conv2D(64, 5, strides=2, padding="same"),
            layers.LeakyReLU(LEAK),
            layers.Dropout(dropout),
            Conv2D(128, 5, strides=2, padding="same"),
            layers.LeakyReLU(LEAK),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(1, dtype="float32"),
        ],
        name="discriminator",
    )


def to_unit(pixels: Any) -> Any:
    """Pixels uint8 as a tensor float32 -1 … 1, of the same shape."""
    return tf.cast(pixels, tf.float32) / PIXEL_SCALE - 1.0


def to_pixels(images: Any) -> NDArray[np.uint8]:
    """Images float32 -1 … 1 as pixels, of the same shape: scaled, clamped, then rounded half to even."""
    levels = np.clip(np.asarray(images) * np.float32(PIXEL_SCALE) + np.float32(PIXEL_SCALE), 0, 255)
    return np.asarray(np.rint(levels), np.uint8)


def set_batch_statistics(generator: Any, noise: Any) -> None:
    """Sets the batch-normalisation statistics of averaged weights to their means over noise [batches, batch_size, 100].

    An average of weights has activations of its own, so the statistics gathered along the way belong to other
    networks (Izmailov et al. 2018, section 3.2).
    """
    weights = [weight.value for weight in generator.trainable_variables]
    for statistic, mean in zip(generator.non_trainable_variables, _batch_statistics()(weights, noise), strict=True):
        statistic.assign(mean)


@cache
def _batch_statistics() -> Any:
    """Builds the graph once for all generators: from trainable weights and noise to the means of the statistics."""
    with dtype_policy("float32"):
        network = build_generator()
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def means(weights: Any, noise: Any) -> Any:
        def one_batch(k: Any, statistics: Any) -> Any:
            for layer in norms:
                layer.momentum = tf.cast(k / (k + 1), tf.float32)  # Then the moving average is the mean of all batches.
            return k + 1, network.stateless_call(weights, statistics, noise[k], training=True)[1]

        start = [tf.zeros_like(each) for each in network.non_trainable_variables]
        return tf.while_loop(lambda k, _: k < noise.shape[0], one_batch, [0, start])[1]

    return means


def averaged_generator(weights: list[NDArray[Any]], batch_size: int, seed: int) -> Any:
    """A generator in float32 with averaged weights, and batch-normalisation statistics of its own."""
    generator = float32_copy(build_generator, weights)
    noise = tf.random.stateless_normal([STATISTICS_BATCHES, batch_size, NOISE_DIM], seed=[seed, -1])
    set_batch_statistics(generator, noise)
    return generator


def float32_copy(build: Callable[[], Any], weights: list[NDArray[Any]]) -> Any:
    """A network with the given weights, as its ``get_weights`` gives them, that computes in float32."""
    with dtype_policy("float32"):
        copy = build()
    copy.set_weights(weights)
    return copy


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras's global dtype policy in the block: "float32" or "mixed_bfloat16"."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def logits_of(network: Any, images: Images) -> NDArray[np.float32]:
    """The logits of a network, float32 [N, classes], for images uint8 [N, 28, 28]."""
    logits: NDArray[np.float32] = in_batches(
        lambda batch: network(to_unit(batch), training=False), images.reshape(-1, *IMAGE_SHAPE)
    )
    return logits


def write_weights(path: Path, weights: list[NDArray[Any]]) -> None:
    """Writes a network's weights, in the order of its ``get_weights``, as an .npz file."""
    content = io.BytesIO()
    np.savez(content, *weights)
    write_atomically(path, content.getvalue())


def read_weights(path: Path) -> list[NDArray[Any]]:
    """Reads what :func:`write_weights` wrote. Raises ConfigError where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[f"arr_{k}"] for k in range(len(archive.files))]
    except Exception as error:  # NumPy, zipfile and zlib document no common one.
        raise ConfigError(f"{path} is damaged: copy it again, or train again ({error})") from error
