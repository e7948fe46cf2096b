"""Files that are complete or absent: written under a temporary name, then renamed. And locks."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.errors import UserError


def write_atomically(path: Path, content: str | bytes, directory: Path | None = None) -> None:
    """Writes a file. A reader sees all of it or the file before it, also after a crash.

    Until it is complete, it is in ``directory``, which is on the same file system. Default: its own.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = (directory or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Keeps the file ``path`` locked until the block or the process ends. Raises UserError if another holder has it.

    Where the file system has no locks, it keeps no other holder away.
    """
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(refusal) from error
        except OSError:
            pass
        yield
