"""Pixels as files: what ``test_generate`` doesn't see of PNG, sheets, zip and streams."""

import gc
import io
import sys
import zipfile

import numpy as np
import pytest

from api.formats import images
from api.formats.streams import ZipStream


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3), (6, 2, 3), (7, 3, 3), (10, 3, 4), (16, 4, 4), (100, 10, 10)],
)
def test_a_sheet_is_nearly_square_and_holds_each_image_in_reading_order_on_black(
    count: int, rows: int, columns: int
) -> None:
    digits = np.random.default_rng(count).integers(1, 256, (count, 28, 28), np.uint8)
    sheet = images.sheet(digits).copy()
    assert sheet.shape == images.sheet_shape(count) == (rows * 30 + 2, columns * 30 + 2)
    for index, digit in enumerate(digits):
        top, left = 2 + 30 * (index // columns), 2 + 30 * (index % columns)
        assert np.array_equal(sheet[top : top + 28, left : left + 28], digit)
        sheet[top : top + 28, left : left + 28] = 0
    assert not sheet.any()


def test_more_files_than_the_old_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 2 in place of 65,535: the directory is then the new format's."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    stream = ZipStream()
    archive = b"".join([*(stream.add(name, b"a") for name in "012"), stream.finish()])
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
