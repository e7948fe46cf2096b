"""The layers compute what Keras's compute, forward and backward, by another way."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import layers

ROWS = 3
LAYERS = {
    "stride 1, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 1, "use_bias": False}, (7, 7, 96)),
    "stride 2, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 2, "use_bias": False}, (7, 7, 96)),
    "stride 2": ("Conv2D", {"filters": 6, "strides": 2}, (14, 14, 96)),
    "another side": ("Conv2D", {"filters": 7, "strides": 2}, (10, 10, 64)),
}


def pair(name: str, dtype: str) -> tuple[Any, Any, Any]:
    """Our layer and Keras's with the same weights, and an input."""
    kind, options, shape = LAYERS[name]
    ours, keras_layer = (
        getattr(module, kind)(kernel_size=5, padding="same", dtype=dtype, **options)
        for module in (layers, keras.layers)
    )
    x = np.random.default_rng(0).normal(size=(ROWS, *shape))
    ours.build(x.shape)
    keras_layer.build(x.shape)
    if ours.use_bias:
        ours.bias.assign(np.arange(options["filters"]))
    keras_layer.set_weights(ours.get_weights())
    return ours, keras_layer, tf.constant(x, dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_and_its_gradients_are_kerass(name: str) -> None:
    """In float64, where nothing but rounding can differ: first and second derivatives too."""
    results = []
    *both, x = pair(name, "float64")
    for layer in both:
        with tf.GradientTape(persistent=True) as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                y = layer(x)
                cubes = tf.reduce_sum(y**3)
            slopes = first.gradient(cubes, x)
            squares = tf.reduce_sum(slopes**2)
        results.append([y, slopes, *second.gradient(squares, [x, *layer.trainable_variables])])
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10 * np.abs(reference).max())


@pytest.mark.parametrize("name", LAYERS)
def test_float32_rounds_no_more_than_kerass_own(name: str) -> None:
    ours, keras_layer, x = pair(name, "float32")
    _, exact_layer, _ = pair(name, "float64")
    exact_layer.set_weights(ours.get_weights())
    exact = exact_layer(tf.cast(x, tf.float64))
    errors = [np.sqrt(np.mean((np.float64(layer(x)) - exact) ** 2)) for layer in (ours, keras_layer)]
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize("shape", [(64, 12), (16, 4, 4, 3)])
def test_batch_normalisation_is_kerass_and_remembers_the_same(shape: tuple[int, ...]) -> None:
    x = tf.constant(np.random.default_rng(0).normal(2, 3, shape), tf.float32)
    results = []
    for layer in (layers.BatchNormalization(), keras.layers.BatchNormalization()):
        layer.build(shape)
        layer.gamma.assign(np.linspace(0.5, 2, shape[-1]))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            cubes = tf.reduce_sum(y**3)
        gradients = tape.gradient(cubes, [x, *layer.trainable_variables])
        results.append([y, *gradients, *layer.get_weights(), layer(x, training=False)])
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=2e-4, atol=2e-4 * np.abs(reference).max())


def test_dropout_drops_its_share_and_makes_up_for_it() -> None:
    layer = layers.Dropout(0.2, seed=1)
    x = tf.ones([100, 1000])
    first, second = layer(x, training=True).numpy(), layer(x, training=True).numpy()
    assert set(np.unique(first)) == {np.float32(0), np.float32(1.25)}
    assert abs((first == 0).mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / first.size)
    both = ((first == 0) & (second == 0)).mean()
    assert abs(both - 0.04) < 5 * np.sqrt(0.04 * 0.96 / first.size), "one step's mask tells nothing of the next one's"
    assert layer(x, training=False) is x
