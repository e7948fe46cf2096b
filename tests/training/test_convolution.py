"""Convolutions through the frequency domain give what Keras's own layers give, forward and backward."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.gan import convolution

LAYERS = {
    "stride 1, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 1, "use_bias": False}, (7, 7, 24)),
    "stride 2, transposed": ("Conv2DTranspose", {"filters": 6, "strides": 2, "use_bias": False}, (7, 7, 24)),
    "stride 2": ("Conv2D", {"filters": 6, "strides": 2}, (14, 14, 24)),
    "another side": ("Conv2D", {"filters": 7, "strides": 2}, (10, 10, 16)),
}


def in_training(layer: Any, x: Any) -> Any:
    """Keras's own layers take no argument ``training``."""
    return layer(x) if type(layer).__module__.startswith("keras") else layer(x, training=True)


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
                y = in_training(layer, x)
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
        outputs.append(np.float64(in_training(layer, tf.constant(np.float32(x), dtype))))
    error, size = (np.sqrt(np.mean(each**2)) for each in (outputs[0] - outputs[1], outputs[1]))
    assert error < 5 * np.finfo(np.float32).eps * size
