"""Pixels as files: PNG, sheet and npy, with every value kept."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api.formats import images

Pixels = NDArray[np.uint8]


def some(count: int, side: int = 28) -> Pixels:
    return np.random.default_rng(count).integers(1, 256, (count, side, side), np.uint8)


def decoded(png: bytes) -> Pixels:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "L"
    return np.asarray(image)


def test_png_keeps_all_256_values() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decoded(images.png(ramp)), ramp)


@pytest.mark.parametrize("scale", [1, 2, 32])
def test_enlarging_repeats_every_pixel(scale: int) -> None:
    small = some(1)[0]
    large = decoded(images.png(small, scale))
    assert large.shape == (28 * scale, 28 * scale)
    for row, column in np.ndindex(scale, scale):
        assert np.array_equal(large[row::scale, column::scale], small)


def test_one_image_is_its_own_sheet() -> None:
    assert np.array_equal(images.sheet(some(1)), some(1)[0])


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3), (6, 2, 3), (7, 3, 3), (10, 3, 4), (16, 4, 4), (100, 10, 10)],
)
def test_a_sheet_is_as_near_to_a_square_as_the_number_allows(count: int, rows: int, columns: int) -> None:
    sheet = images.sheet(some(count))
    assert sheet.shape == (rows * 30 + 2, columns * 30 + 2)
    assert sheet.shape == images.sheet_shape(count, 28)


def test_a_sheet_holds_each_image_in_reading_order_on_black() -> None:
    digits = some(5)
    sheet = images.sheet(digits).copy()
    for index, digit in enumerate(digits):
        top, left = 2 + 30 * (index // 3), 2 + 30 * (index % 3)
        assert np.array_equal(sheet[top : top + 28, left : left + 28], digit)
        sheet[top : top + 28, left : left + 28] = 0
    assert not sheet.any()


def test_npy_header_and_pixels_are_a_file_that_numpy_loads() -> None:
    digits = some(3)
    file = images.npy_header(3, 28) + digits.tobytes()
    assert np.array_equal(np.load(io.BytesIO(file)), digits)
