"""The generator and the discriminator, as the course that this project implements defines them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE, NOISE_DIM
from serving.files import write_atomically
from training.gan.convolution import Conv2D, Conv2DTranspose

LEAK: Final = 0.2
"""LeakyReLU's slope for negative inputs."""

STATISTICS_BATCHES: Final = 100
"""Batches of noise from which the statistics of averaged weights are estimated. From few of them they are so rough that
the figures suffer (docs/recipe.md)."""


def build_generator() -> Any:
    """The generator: noise float32 [N, 100] -> images float32 [N, 28, 28, 1] in -1 … 1 (tanh).

    Computes in the global mixed-precision policy; the output is float32 under any.
    """
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


def build_discriminator(dropout: float) -> Any:
    """The discriminator: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 1], positive for real.

    Args:
        dropout: share of activations dropped while training.
    """
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


def set_batch_statistics(generator: Any, noise: Any, batch_size: int) -> None:
    """Sets the batch-normalisation statistics of averaged weights to what those weights really produce.

    An average of weights has activations of its own, so the statistics gathered along the way belong to other
    networks (Izmailov et al. 2018, section 3.2). Each statistic becomes the plain mean over the batches.

    Args:
        generator: the network, changed in place.
        noise: float32 [N, 100], N a multiple of batch_size.
        batch_size: rows a batch.
    """
    norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    statistics = [variable for layer in norms for variable in (layer.moving_mean, layer.moving_variance)]
    for layer in norms:
        layer.momentum = 0.0  # what a batch gives takes the place of what the batch before it gave
    batch = tf.function(lambda noise: generator(noise, training=True))
    sums = [np.zeros(variable.shape) for variable in statistics]
    batches = len(noise) // batch_size
    for k in range(batches):
        batch(noise[k * batch_size : (k + 1) * batch_size])
        for total, variable in zip(sums, statistics, strict=True):
            total += np.asarray(variable)
    for total, variable in zip(sums, statistics, strict=True):
        variable.assign(total / batches)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def averaged_generator(weights: list[NDArray[Any]], batch_size: int, seed: int) -> Any:
    """A generator in float32 with averaged weights, and the batch-normalisation statistics that they produce.

    Args:
        weights: as the generator's ``get_weights`` would give them; the statistics among them are replaced.
        batch_size: the batch size of the training.
        seed: root of the noise that the statistics are estimated from.
    """
    generator = float32_copy(build_generator, weights)
    noise = tf.random.stateless_normal([STATISTICS_BATCHES * batch_size, NOISE_DIM], seed=[seed, -1])
    set_batch_statistics(generator, noise, batch_size)
    return generator


def float32_copy(build: Callable[[], Any], weights: list[NDArray[Any]]) -> Any:
    """A network with the given weights that computes in float32, whatever the training computed in.

    Args:
        build: builds the network.
        weights: as its ``get_weights`` would give them.
    """
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("float32")
    try:
        copy = build()
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    copy.set_weights(weights)
    return copy


def write_weights(path: Path, weights: list[NDArray[Any]]) -> None:
    """Writes a network's weights, in the order of its ``get_weights``, as an .npz file."""
    content = io.BytesIO()
    np.savez(content, *weights)
    write_atomically(path, content.getvalue())


def read_weights(path: Path) -> list[NDArray[Any]]:
    """Reads what :func:`write_weights` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return [archive[f"arr_{k}"] for k in range(len(archive.files))]
