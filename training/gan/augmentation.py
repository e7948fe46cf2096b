"""Random transformations that real and generated images pass before the discriminators see them.

A discriminator that sees each training image in many forms does not memorise it. The transformations are
differentiable, so that the generator learns through them (Zhao et al. 2020). Part of the images stays as it is, so that
the generator does not learn to transform its digits (Karras et al. 2020, section 2.2).
"""

from typing import Any, Final

import tensorflow as tf

from serving.contract import IMAGE_SHAPE

MOST_SHIFT: Final = 2.0
"""Pixels, in each direction."""
MOST_SHEAR: Final = 0.15
"""Pixels of shift for each pixel of distance from the centre."""
MOST_SCALE: Final = 0.12
"""Share by which the digit grows or shrinks."""
RANDOM_NUMBERS: Final = 7
"""For each image: shift, shear and scale along the rows, the same along the columns, and whether it is chosen."""


def augment(images: Any, share: float, uniform: Any) -> Any:
    """Shifts, shears and scales a share of the images in -1 … 1, by random numbers from 0 to 1 [N, RANDOM_NUMBERS]."""
    chosen = tf.cast(uniform[:, 6:] < share, tf.float32)
    amounts = chosen * (2 * uniform[:, :6] - 1) * (2 * [MOST_SHIFT, MOST_SHEAR, MOST_SCALE])
    ink = images[..., 0] + 1
    for shift, shear, scale in (tf.unstack(amounts[:, :3], axis=1), tf.unstack(amounts[:, 3:], axis=1)):
        ink = tf.transpose(_resample_rows(ink, shift, shear, scale), [0, 2, 1])
    return ink[..., tf.newaxis] - 1


def _resample_rows(ink: Any, shift: Any, shear: Any, scale: Any) -> Any:
    """Moves the pixels of each row by linear interpolation. Amounts of 0 leave an image exactly as it is."""
    places = tf.range(IMAGE_SHAPE[0], dtype=tf.float32) - (IMAGE_SHAPE[0] - 1) / 2
    shift, shear, scale = (each[:, tf.newaxis, tf.newaxis] for each in (shift, shear, scale))
    sources = (1 + scale) * places + shear * places[:, tf.newaxis] + shift  # [N, row, column]
    weights = tf.nn.relu(1 - tf.abs(sources[..., tf.newaxis, :] - places[:, tf.newaxis]))  # [N, row, source, column]
    return tf.reduce_sum(ink[..., tf.newaxis] * weights, axis=2)
