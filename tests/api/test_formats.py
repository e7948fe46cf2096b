"""Pixels as files: PNG, sheet, npy and zip, with every value kept."""

import gc
import io
import sys
import zipfile

import numpy as np
import pytest
from numpy.typing import NDArray

from api.formats import images
from api.formats.zipstream import ZipStream
from tests.support.pictures import pixels_of

Pixels = NDArray[np.uint8]


def some(count: int, side: int = 28) -> Pixels:
    return np.random.default_rng(count).integers(1, 256, (count, side, side), np.uint8)


def test_png_keeps_all_256_values() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels_of(images.png(ramp)), ramp)


@pytest.mark.parametrize("scale", [1, 2, 32])
def test_enlarging_repeats_every_pixel(scale: int) -> None:
    small = some(1)[0]
    large = pixels_of(images.png(small, scale))
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


def archive_of(files: dict[str, bytes]) -> bytes:
    archive = ZipStream()
    return b"".join([*(archive.add(name, content) for name, content in files.items()), archive.finish()])


def test_equal_files_are_equal_archives() -> None:
    assert archive_of({"a": b"a"}) == archive_of({"a": b"a"})


def test_files_are_readable_by_their_owner_and_stored() -> None:
    with zipfile.ZipFile(io.BytesIO(archive_of({"a": b"a"}))) as opened:
        (info,) = opened.infolist()
    assert info.external_attr >> 16 == 0o100644
    assert info.compress_type == zipfile.ZIP_STORED
    assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_more_files_than_the_old_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 2 in place of 65,535: the directory is then the new format's."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    archive = archive_of({str(index): b"" for index in range(3)})
    assert b"PK\x06\x06" in archive
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist() == ["0", "1", "2"]


def test_an_abandoned_archive_ends_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    archives = [ZipStream() for _ in range(50)]
    for archive in archives:
        archive.add("a", b"a")
        vars(archive)["itself"] = archive  # as a task and its traceback do: the collector then chooses the order
    del archive, archives
    gc.collect()
    assert not errors
