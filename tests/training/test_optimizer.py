"""The fused Adam moves weights as Keras's does."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.optimizer import Adam


def moved(optimizer: Any) -> list[Any]:
    """The weights after five steps down a bowl, and the optimizer's own variables."""
    weights = [
        keras.Variable(np.linspace(-2, 3, 7), dtype="float32"),
        keras.Variable(np.full((2, 3), 1.5), dtype="float32"),
    ]
    optimizer.build(weights)
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum((weight.value - 1.0) ** 4) for weight in weights)
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
    return [np.asarray(each) for each in (*weights, *optimizer.variables)]


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.999), (0.0, 0.99)])
def test_it_is_kerass_adam(beta_1: float, beta_2: float) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=8)
    ours, reference = (kind(schedule, beta_1=beta_1, beta_2=beta_2) for kind in (Adam, keras.optimizers.Adam))
    for mine, expected in zip(moved(ours), moved(reference), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)  # 1 - 0.999 has few digits
