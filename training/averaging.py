"""The average of the generators that a run kept over its last half, which may do better than any of them.

Each of those is an average itself, over the last thousand steps or so. Their averages lie beside each other around a
flat place of the loss, and the mean of them all is nearer to its middle (stochastic weight averaging: Izmailov et al.
2018).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.contract import NOISE_DIM
from training.config import TrainingConfig
from training.networks import build_generator, float32_copy, set_batch_statistics
from training.selection import kept_steps, kept_weights

STATISTICS_BATCHES: Final = 100
"""Batches of noise that the batch-normalisation statistics are estimated from."""


@dataclass(frozen=True)
class Average:
    """A generator made of several. ``steps``: those after which they were kept, ascending."""

    generator: Any
    steps: list[int]


def average_of_run(run: Path, config: TrainingConfig) -> Average | None:
    """Returns the average over the last half of a run; None where fewer than two generators of it were kept."""
    import tensorflow as tf

    steps = kept_steps(run)
    steps = [step for step in steps if 2 * step >= steps[-1]]
    if len(steps) < 2:
        return None
    weights = [np.mean(each, axis=0) for each in zip(*(kept_weights(run, step) for step in steps), strict=True)]
    generator = float32_copy(build_generator, weights)
    batch_size = config.recipe.batch_size
    noise = tf.random.stateless_normal([STATISTICS_BATCHES * batch_size, NOISE_DIM], seed=[config.seed, -1])
    set_batch_statistics(generator, noise, batch_size)
    return Average(generator, steps)
