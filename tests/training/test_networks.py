"""The networks are the deck's, layer by layer, and pixels survive the way through them."""

import numpy as np
import tensorflow as tf

from training.gan.networks import build_discriminator, build_generator, set_batch_statistics, to_pixels


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
