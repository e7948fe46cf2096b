"""A zip archive written as it goes, in 46 bytes and a name of memory a file.

The standard library's ``zipfile`` can stream too, and keeps an object a file until the end: 40 MB for 100,000
files. Files are stored and not deflated, as PNG is compressed already. Layout: PKWARE's APPNOTE.TXT 6.3.10,
sections 4.3 and 4.5.3 (Zip64, which any reader of this decade knows; used only where the archive needs it).
"""

import struct
import zlib
from typing import Final

ZIP: Final = "application/zip"

_UTF8_NAMES: Final = 0x0800
_MIDNIGHT_1980: Final = (0, 0x21)  # the earliest time and date that zip knows: equal requests, equal bytes
_REGULAR_FILE: Final = 0o100644 << 16
_UNIX: Final = 3 << 8
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF


class ZipStream:
    """Call ``add`` for each file and ``finish`` at the end, and send what they return, in this order."""

    def __init__(self) -> None:
        self._directory = bytearray()
        self._offset = 0
        self._count = 0

    def add(self, name: str, content: bytes) -> bytes:
        """Returns the bytes of one more file of the archive. ``content`` is below 4 GiB."""
        encoded = name.encode()
        crc, size = zlib.crc32(content), len(content)
        zip64 = struct.pack("<HHQ", 1, 8, self._offset) if self._offset >= _MAX_32 else b""
        version = 45 if zip64 else 20
        about = (_UTF8_NAMES, 0, *_MIDNIGHT_1980, crc, size, size, len(encoded))
        self._directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            _UNIX | version,
            version,
            *about,
            len(zip64),
            0,
            0,
            0,
            _REGULAR_FILE,
            min(self._offset, _MAX_32),
        )
        self._directory += encoded + zip64
        entry = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *about, 0) + encoded + content
        self._offset += len(entry)
        self._count += 1
        return entry

    def finish(self) -> bytes:
        """Returns the archive's end: its directory."""
        size, start, count = len(self._directory), self._offset, self._count
        tail = b""
        if count >= _MAX_16 or start >= _MAX_32:
            record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
            locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
            tail = record + locator
            count, start = min(count, _MAX_16), min(start, _MAX_32)
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, min(size, _MAX_32), start, 0)
        return bytes(self._directory) + tail + end
