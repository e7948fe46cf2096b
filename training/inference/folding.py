"""Batch normalisation at inference: a factor and a bias for each channel, which the weights before it take up."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Folded(NamedTuple):
    """Float64 [channels] each."""

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]


def folded(norm: Any) -> Folded:
    """What a trained BatchNormalization layer does at inference."""
    gamma, beta, mean, variance = (np.asarray(weights, np.float64) for weights in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return Folded(scale, beta - mean * scale)
