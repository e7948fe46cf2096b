"""A zip archive that is sent while it is written. Files are stored, not deflated: PNG is compressed already."""

import io
import zipfile
from typing import Final

ZIP: Final = "application/zip"

_REGULAR_FILE: Final = 0o100644 << 16


class _Unsent(io.BytesIO):
    """A file that holds only its last bytes: those after the first ``sent``."""

    sent = 0

    def tell(self) -> int:
        return self.sent + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.sent + super().seek(offset - self.sent if whence == io.SEEK_SET else offset, whence)

    def take(self) -> bytes:
        """Returns the bytes that the file holds, and counts them as sent."""
        content = self.getvalue()
        self.sent += len(content)
        self.__init__()  # type: ignore[misc]
        return content


class _Archive(zipfile.ZipFile):
    """An archive that may be abandoned before its end, as when the client disconnects."""

    def __del__(self) -> None:
        pass  # ZipFile's own writes the directory, which fails if the file was collected first


class ZipStream:
    """Call ``add`` for each file and ``finish`` at the end, and send what they return, in this order.

    It keeps about 400 bytes of memory a file until the end.
    """

    def __init__(self) -> None:
        self._unsent = _Unsent()
        self._archive = _Archive(self._unsent, "w")

    def add(self, name: str, content: bytes) -> bytes:
        """Returns the bytes of one more file of the archive."""
        info = zipfile.ZipInfo(name)  # with the earliest date that zip knows: equal requests give equal bytes
        info.external_attr = _REGULAR_FILE
        self._archive.writestr(info, content)
        return self._unsent.take()

    def finish(self) -> bytes:
        """Returns the end of the archive: its directory."""
        self._archive.close()
        return self._unsent.take()
