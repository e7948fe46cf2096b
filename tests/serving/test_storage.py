"""find_versions: which directories are versions."""

from pathlib import Path

import pytest

from serving.storage import MAX_VERSION, find_versions


def test_a_version_is_a_directory_called_by_a_positive_integer(tmp_path: Path) -> None:
    assert find_versions(tmp_path) == {}
    for name in ("1", "20", str(MAX_VERSION)):
        (tmp_path / name).mkdir()
    for name in ("0", "-1", "01", "1.0", "1e3", " 2", "²", "٣", "2.tmp", "v2", str(MAX_VERSION + 1), "9" * 200):
        (tmp_path / name).mkdir()
    (tmp_path / "3").touch()
    (tmp_path / "4").symlink_to(tmp_path / "gone")
    (tmp_path / "5").symlink_to(tmp_path / "1")
    assert sorted(find_versions(tmp_path)) == [1, 5, 20, MAX_VERSION]
    assert find_versions(tmp_path)[20].path == tmp_path / "20"
    with pytest.raises(FileNotFoundError):
        find_versions(tmp_path / "missing")
