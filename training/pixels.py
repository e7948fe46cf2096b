"""Between pixels, uint8 0 … 255, and what the networks compute with, float32 -1 … 1."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import PIXEL_SCALE


def to_unit(pixels: Any) -> Any:
    """Pixels uint8 as a tensor float32 -1 … 1, of the same shape."""
    return tf.cast(pixels, tf.float32) / PIXEL_SCALE - 1.0


def to_pixels(images: Any) -> NDArray[np.uint8]:
    """Images float32 -1 … 1 as pixels, of the same shape: scaled, clamped, then rounded half to even."""
    levels = np.clip(np.asarray(images) * np.float32(PIXEL_SCALE) + np.float32(PIXEL_SCALE), 0, 255)
    return np.asarray(np.rint(levels), np.uint8)
