"""How far a saved generator's pixels are from its network's, in each engine of the embedded model server."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.contract import BATCH_SIZES, IMAGES, NOISE, PIXEL_SCALE, SIGNATURE
from serving.model_server.engines import Engine, loader
from serving.noise import noise_from_seeds

NOISES: Final = 4096


def pixel_errors(network: Any, directory: Path) -> dict[str, dict[str, Any]]:
    """Loads a saved generator into every engine that is installed, and has it draw the seeds 0 … 4095.

    Args:
        network: the trained Keras network in float32.
        directory: the SavedModel.

    Returns:
        Engine -> ``share_that_differs`` of all pixels from the network's rounded ones, ``mean_difference`` and
        ``greatest_difference`` in levels (NaN where the network gives NaN), and ``same_in_every_batch``: whether 256 of
        the seeds have the same pixels to the bit in batches of every size that a model server runs.
    """
    noise = noise_from_seeds(range(NOISES))
    largest = BATCH_SIZES[-1]
    starts = range(0, NOISES, largest)
    images = np.concatenate([np.asarray(network(noise[at : at + largest], training=False)) for at in starts])
    expected = np.round(images * PIXEL_SCALE + PIXEL_SCALE)
    errors = {}
    for engine in Engine:
        try:
            load = loader(engine)
        except ImportError:  # the training needs TensorFlow only
            continue
        servable = load(directory)

        def draw(size: int, rows: int, run: Any = servable.run) -> Any:
            batches = (noise[at : min(at + size, rows)] for at in range(0, rows, size))
            return np.concatenate([run(SIGNATURE, {NOISE: batch})[IMAGES] for batch in batches])

        pixels = draw(largest, NOISES)
        difference = np.abs(pixels - expected)
        errors[engine.value] = {
            "share_that_differs": float((difference != 0).mean()),
            "mean_difference": float(difference.mean(dtype=np.float64)),
            "greatest_difference": float(difference.max()),
            "same_in_every_batch": all(np.array_equal(draw(size, largest), pixels[:largest]) for size in BATCH_SIZES),
        }
        servable.close()
    return errors
