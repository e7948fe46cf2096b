"""The networks are the deck's, layer by layer; their own convolutions give what Keras's layers give."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.gan import convolution
from training.gan.networks import build_discriminator, build_generator, set_batch_statistics, to_pixels

LAYERS = {
    "stride 1, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 1, "use_bias": False}, (7, 7, 24)),
    "stride 2, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 2, "use_bias": False}, (7, 7, 24)),
    "stride 2": ("Conv2D", {"filters": 6, "strides": 2}, (14, 14, 24)),
    "another side": ("Conv2D", {"filters": 7, "strides": 2}, (10, 10, 16)),
}


def test_the_generators_layers_and_weights() -> None:
    generator = build_generator()
    shapes = [tuple(layer.output.shape[1:]) for layer in generator.layers]
    assert shapes == [*[(12544,)] * 3, (7, 7, 256), *[(7, 7, 128)] * 3, *[(14, 14, 64)] * 3, *[(28, 28, 1)] * 2]
    kernels = 100 * 12544 + 25 * (256 * 128 + 128 * 64 + 64 * 1)
    norms = 2 * (12544 + 128 + 64)
    assert sum(int(np.prod(weight.shape)) for weight in generator.trainable_variables) == kernels + norms
    assert {layer.negative_slope for layer in generator.layers if "leaky" in layer.name} == {0.2}


def test_the_discriminators_layers_and_weights() -> None:
    discriminator = build_discriminator(dropout=0.2)
    shapes = [tuple(layer.output.shape[1:]) for layer in discriminator.layers]
    assert shapes == [*[(14, 14, 64)] * 3, *[(7, 7, 128)] * 3, (6272,), (1,)]
    assert discriminator.count_params() == (25 * 64 + 64) + (25 * 64 * 128 + 128) + (6272 + 1)
    assert [layer.rate for layer in discriminator.layers if "dropout" in layer.name] == [0.2, 0.2]


def test_batch_statistics_become_those_of_the_weights() -> None:
    """With its own statistics, each normalised layer has mean 0 and variance 1 over the noise they came from."""
    generator = build_generator()
    noise = np.random.default_rng(0).normal(size=(64, 100)).astype(np.float32)
    set_batch_statistics(generator, tf.reshape(noise, [4, 16, 100]))
    dense, norm = generator.layers[:2]
    normalised = np.asarray(norm(dense(noise), training=False))
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-4)
    assert normalised.var(axis=0).mean() > 0.9
    assert norm.momentum == 0.99


def test_every_pixel_value_survives_the_way_there_and_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_pixels(values.astype(np.float32) / 127.5 - 1), values)

    # +1 is 255, not 0; beyond the ends is clamped; the middle, 127.5, rounds half to even.
    np.testing.assert_array_equal(to_pixels(np.array([-2, -1, 0, 1, 2], np.float32)), [0, 0, 128, 255, 255])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_gradients_are_kerass(name: str) -> None:
    """In float64, where nothing but rounding can differ: first and second derivatives too."""
    kind, options, shape = LAYERS[name]
    x = tf.constant(np.random.default_rng(0).normal(size=(3, *shape)))
    results: list[list[Any]] = []
    weights: list[Any] = []
    for module in (convolution, keras.layers):
        layer = getattr(module, kind)(kernel_size=5, padding="same", dtype="float64", **options)
        layer.build(x.shape)
        weights = weights or [*layer.get_weights()[:1], *([np.arange(options["filters"])] if layer.use_bias else [])]
        layer.set_weights(weights)
        with tf.GradientTape(persistent=True) as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                y = layer(x, training=True)
                cubes = tf.reduce_sum(y**3)
            slopes = first.gradient(cubes, x)
            squares = tf.reduce_sum(slopes**2)
        results.append([y, slopes, *second.gradient(squares, [x, *layer.trainable_variables])])
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10 * np.abs(reference).max())


def test_float32_rounds_by_a_few_units_in_the_last_place() -> None:
    """It is 3.3; of the kernels of Keras it is 1.6 or 6.1, depending on the instructions of the CPU."""
    x = np.random.default_rng(0).normal(size=(3, 7, 7, 96))
    kernel = np.random.default_rng(1).normal(size=(5, 5, 6, 96))
    outputs = []
    for module, dtype in ((convolution, "float32"), (keras.layers, "float64")):
        layer = module.Conv2DTranspose(6, 5, padding="same", use_bias=False, dtype=dtype)
        layer.build(x.shape)
        layer.set_weights([np.float32(kernel)])
        outputs.append(np.float64(layer(tf.constant(np.float32(x), dtype), training=True)))
    error, size = (np.sqrt(np.mean(each**2)) for each in (outputs[0] - outputs[1], outputs[1]))
    assert error < 5 * np.finfo(np.float32).eps * size
