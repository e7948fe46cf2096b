"""Pixels as files: what ``test_generate`` doesn't see of PNG, sheets, zip and streams."""

import gc
import io
import sys
import zipfile

import pytest

from api.formats.streams import ZipStream


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
