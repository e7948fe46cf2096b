"""Archives of more files than ``test_generate`` asks for."""

import io
import zipfile

import pytest

from api.formats.streams import ZipStream


def test_more_files_than_the_old_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 2 in place of 65,535: the directory is then the new format's."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    stream = ZipStream()
    archive = b"".join([*(stream.add([(name, b"a")]) for name in "012"), stream.finish()])
    assert b"PK\x06\x06" in archive
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist() == ["0", "1", "2"]
