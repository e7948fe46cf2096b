"""The zip that is written as it goes: read back by the standard library, in all its sizes."""

import gc
import io
import sys
import zipfile

import pytest

from api.formats.zipstream import ZipStream


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


def test_more_files_than_the_old_format_counts() -> None:
    count = 2**16
    archive = ZipStream()
    whole = b"".join([*(archive.add(f"{index}", b"") for index in range(count)), archive.finish()])
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.namelist() == [str(index) for index in range(count)]


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
