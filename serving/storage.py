"""Model versions on disk: ``<base path>/<version>/``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_VERSION: Final = 2**63 - 1
"""The largest version number that fits the API's int64."""


@dataclass(frozen=True)
class StoredVersion:
    """One version's directory. ``identity`` changes when another directory takes its place by renaming."""

    path: Path
    identity: tuple[int, int]


def find_versions(base_path: Path) -> dict[int, StoredVersion]:
    """Returns the version directories under ``base_path``, by number.

    A version is a directory whose name is a positive integer in plain decimal form. Any other name, like
    the one that a version has while it is being written, is invisible.

    Raises OSError when ``base_path`` can't be listed, which is not the same as holding no versions.
    """
    found = {}
    for child in base_path.iterdir():
        number = _version_number(child.name)
        if number is None:
            continue
        try:
            status = child.stat()
        except OSError:  # deleted since it was listed
            continue
        if child.is_dir():
            found[number] = StoredVersion(child, (status.st_ino, status.st_mtime_ns))
    return found


def newest_version(base_path: Path) -> Path | None:
    """Returns the directory of the newest version under ``base_path``; None if there is none, or no such directory."""
    found = find_versions(base_path) if base_path.is_dir() else {}
    return found[max(found)].path if found else None


def _version_number(name: str) -> int | None:
    if not (name.isascii() and name.isdecimal()) or name.startswith("0") or len(name) > len(str(MAX_VERSION)):
        return None
    number = int(name)
    return number if number <= MAX_VERSION else None
