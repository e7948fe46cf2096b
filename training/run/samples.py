"""Pictures of what a generator makes."""

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract import IMAGE_SIDE
from serving.files import write_atomically
from serving.noise import noise_from_seeds
from training.pixels import to_pixels

SAMPLES: Final = "samples"
"""The directory of a run's pictures."""
GRID_SIDE: Final = 8
SCALE: Final = 2


def write_grid(path: Path, generator: Any) -> None:
    """Writes an 8×8 grid of the digits of the seeds 0 … 63, row by row, as a PNG at twice their size."""
    noise = noise_from_seeds(range(GRID_SIDE**2))
    digits = to_pixels(generator(noise, training=False))
    png = BytesIO()
    enlarged(sheet(digits.reshape(-1, IMAGE_SIDE, IMAGE_SIDE), GRID_SIDE)).save(png, format="PNG")
    write_atomically(path, png.getvalue())


def read_grid(path: Path) -> NDArray[np.uint8]:
    """The digits in a picture that :func:`write_grid` wrote: uint8 [64, 28, 28], by seed."""
    with Image.open(path) as picture:
        grid = np.asarray(picture)[::SCALE, ::SCALE]
    rows = grid.reshape(GRID_SIDE, IMAGE_SIDE, GRID_SIDE, IMAGE_SIDE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)


def sheet(digits: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Digits side by side in rows.

    Args:
        digits: uint8 [N, 28, 28].
        columns: how many a row; N is a multiple of it.

    Returns:
        uint8 [28 · N / columns, 28 · columns].
    """
    rows = digits.reshape(-1, columns, IMAGE_SIDE, IMAGE_SIDE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * IMAGE_SIDE)


def enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """A picture at twice its size, each pixel a square. ``pixels``: uint8 [height, width]."""
    height, width = pixels.shape
    return Image.fromarray(pixels).resize((width * SCALE, height * SCALE), Image.Resampling.NEAREST)
