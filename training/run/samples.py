"""Pictures of what a generator makes at the milestones of a run."""

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract import IMAGE_SIDE
from serving.files import write_atomically
from serving.noise import noise_from_seeds
from training.config import TrainingConfig
from training.gan.networks import to_pixels

SAMPLES: Final = "samples"
"""The directory of a run's pictures."""
GRID_SIDE: Final = 8
SCALE: Final = 2
STEPS: Final = (1, 200, 300, 600, 700, 900, 1000)
"""The course deck's stages, in steps."""


def milestones(config: TrainingConfig) -> frozenset[int]:
    """The steps after which the same fixed noise is pictured: the deck's, then ends of epochs, fewer and fewer."""
    epochs = range(1, int(config.epochs_at(config.steps)) + 1)
    kept = (epoch for epoch in epochs if epoch <= 10 or (epoch <= 50 and epoch % 5 == 0) or epoch % 25 == 0)
    ends = {step for step in map(config.step_of_epoch, kept) if step > STEPS[-1]}
    return frozenset(step for step in {*STEPS, *ends, config.steps} if step <= config.steps)


def write_grid(path: Path, generator: Any) -> None:
    """Writes an 8×8 grid of the digits of the seeds 0 … 63, row by row, as a PNG at twice their size."""
    noise = noise_from_seeds(range(GRID_SIDE**2))
    digits = to_pixels(generator(noise, training=False))
    write_atomically(path, png_of(enlarged(sheet(digits.reshape(-1, IMAGE_SIDE, IMAGE_SIDE), GRID_SIDE))))


def read_grid(path: Path) -> NDArray[np.uint8]:
    """The digits in a picture that :func:`write_grid` wrote: uint8 [64, 28, 28], by seed."""
    with Image.open(path) as picture:
        grid = np.asarray(picture)[::SCALE, ::SCALE]
    rows = grid.reshape(GRID_SIDE, IMAGE_SIDE, GRID_SIDE, IMAGE_SIDE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)


def sheet(digits: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Digits uint8 [N, 28, 28] side by side in rows: uint8 [28 · N / columns, 28 · columns]."""
    rows = digits.reshape(-1, columns, IMAGE_SIDE, IMAGE_SIDE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * IMAGE_SIDE)


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    """Gray pixels, uint8 [height, width], as a PNG."""
    png = BytesIO()
    Image.fromarray(pixels).save(png, format="PNG", optimize=True)
    return png.getvalue()


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels uint8 [height, width] at twice the size."""
    return pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
