"""Pictures of what a generator makes."""

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract import IMAGE_SIDE, PIXEL_SCALE
from serving.files import write_atomically
from serving.noise import noise_from_seeds

GRID_SIDE: Final = 8
SCALE: Final = 2


def pixels(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """From the networks' -1 … 1 to pixels: scaled, clamped, then rounded (half to even), so that +1.0 is 255.

    Args:
        images: float32, any shape.

    Returns:
        uint8, the same shape.
    """
    levels = np.clip(images * np.float32(PIXEL_SCALE) + np.float32(PIXEL_SCALE), 0, 255)
    return np.asarray(np.rint(levels), np.uint8)


def write_grid(path: Path, generator: Any) -> None:
    """Writes an 8×8 grid of the digits of the seeds 0 … 63, row by row, as a PNG at twice their size."""
    noise = noise_from_seeds(range(GRID_SIDE**2))
    digits = pixels(np.asarray(generator(noise, training=False)))
    rows = digits.reshape(GRID_SIDE, GRID_SIDE, IMAGE_SIDE, IMAGE_SIDE)
    grid = rows.transpose(0, 2, 1, 3).reshape(GRID_SIDE * IMAGE_SIDE, GRID_SIDE * IMAGE_SIDE)
    png = BytesIO()
    Image.fromarray(grid).resize((grid.shape[1] * SCALE, grid.shape[0] * SCALE), Image.Resampling.NEAREST).save(
        png, format="PNG"
    )
    write_atomically(path, png.getvalue())
