"""Image files: written, put together by hand, and read."""

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Handwritten = tuple[Pixels, Pixels]
"""Images [N, 28, 28] and their labels [N]."""


def saved(picture: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(file, kind, **options)
    return file.getvalue()


def base64_of(file: bytes) -> str:
    return base64.b64encode(file).decode()


def save_npz(path: Path, handwritten: Handwritten, images: int = 1500) -> Path:
    """Writes digits as Keras lays MNIST out: so many to train on, and 297 others to test on."""
    (x, y), test = handwritten, slice(1500, None)
    np.savez(path, x_train=x[:images], y_train=y[:images], x_test=x[test], y_test=y[test])
    return path


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, pixels: bytes, *, bits: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    """Returns a PNG whose header says so, with compressed ``pixels``; ``before`` are chunks before them."""
    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pixels_of(png: bytes) -> Pixels:
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image)
