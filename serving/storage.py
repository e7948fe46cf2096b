"""Model versions on disk: ``<base path>/<version>/``."""

import re
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Final

MAX_VERSION: Final = 2**63 - 1
"""The largest version number that fits the API's int64."""
_NUMBER: Final = re.compile("[1-9][0-9]*")


@dataclass(frozen=True)
class StoredVersion:
    """One version's directory. ``identity`` changes when another directory takes its place by renaming."""

    path: Path
    identity: tuple[int, int]


def find_versions(base_path: Path) -> dict[int, StoredVersion]:
    """Returns the version directories under ``base_path``, by number. Raises OSError when it can't be listed.

    A version's directory is named by a positive integer in plain decimal form. Any other name, such as that of an
    unfinished version, is ignored.
    """
    found = {}
    for child in base_path.iterdir():
        if not _NUMBER.fullmatch(child.name) or int(child.name) > MAX_VERSION:
            continue
        try:
            status = child.stat()
        except OSError:  # deleted since it was listed
            continue
        if S_ISDIR(status.st_mode):
            found[int(child.name)] = StoredVersion(child, (status.st_ino, status.st_mtime_ns))
    return found


def newest_version(base_path: Path) -> Path | None:
    """Returns the directory of the newest version under ``base_path``; None if there is none, or no such directory."""
    found = find_versions(base_path) if base_path.is_dir() else {}
    return found[max(found)].path if found else None
