"""Pixels as files: PNG, a sheet of several digits, and the header of an ``.npy`` file."""

import io
import math
import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import DTypeLike
from zlib_ng import zlib_ng

from api.digits.containers import PNG_SIGNATURE
from api.digits.ink import Pixels
from serving.contract import IMAGE_SIDE

PNG: Final = "image/png"
NPY: Final = "application/x-npy"

SHEET_GAP: Final = 2  # pixels, before scaling, around each digit of a sheet
_CELL: Final = IMAGE_SIDE + SHEET_GAP


def enlarge(images: Pixels, scale: int) -> Pixels:
    """Repeats each pixel of images [..., H, W]: [..., H·scale, W·scale]."""
    if scale == 1:
        return images
    return images.repeat(scale, axis=-2).repeat(scale, axis=-1)


def png(image: Pixels, scale: int = 1) -> bytes:
    """Returns one image [H, W], enlarged, as an 8-bit grayscale PNG (W3C, "Portable Network Graphics", 3rd edition)."""
    height, width = image.shape[0] * scale, image.shape[1] * scale
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with 0, not filtered: digits get smaller files
    rows[:, 1:] = enlarge(image, scale)
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)  # 8 bits, gray
    compressed = zlib_ng.compress(rows, 2)  # no larger than Pillow's level 1, in half the time (benchmarks/gateway.py)
    file = [PNG_SIGNATURE]
    for kind, content in ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b"")):
        checksum = zlib.crc32(content, zlib.crc32(kind))
        file += [struct.pack(">I4s", len(content), kind), content, struct.pack(">I", checksum)]
    return b"".join(file)


def sheet_shape(count: int) -> tuple[int, int]:
    """Returns height and width in pixels, before scaling, of a sheet of ``count`` digits; one has no margin."""
    if count == 1:
        return IMAGE_SIDE, IMAGE_SIDE
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    return rows * _CELL + SHEET_GAP, columns * _CELL + SHEET_GAP


def sheet(digits: Pixels) -> Pixels:
    """Returns ``digits`` [N, 28, 28] row by row on a black sheet, as near to a square as N allows."""
    if len(digits) == 1:
        return np.asarray(digits[0])
    pixels = np.zeros(sheet_shape(len(digits)), np.uint8)
    columns = pixels.shape[1] // _CELL
    for place, digit in enumerate(digits):
        top, left = (SHEET_GAP + _CELL * index for index in divmod(place, columns))
        pixels[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] = digit
    return pixels


def npy_header(dtype: DTypeLike, *shape: int) -> bytes:
    """Returns what comes before the values in an ``.npy`` file of an array."""
    file = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
    return file.getvalue()
