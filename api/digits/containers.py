"""Finds files that take a decoder seconds to minutes for few pixels, before it reads them.

A PNG of 8 MB can have 700,000 chunks, or 8,000 colour profiles of a mebibyte each when inflated; a JPEG as many
segments, or thousands of scans of all its pixels. Layouts: PNG (Third Edition) section 5, JPEG (ITU-T T.81) annex B.
"""

from typing import Final

MOST_SCANS: Final = 64  # of a JPEG; progressive encoders make about 10
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ALONE: Final = frozenset({0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})  # Pillow reads no length there


def complaint(file: bytes) -> str:
    """Returns why a PNG or JPEG would take too long to decode; "" for all others, and for malformed files."""
    # Encoders put 8 KiB and more of pixels into a chunk, and up to 64 KiB of a profile into a segment.
    most = 64 + len(file) // 1024
    if file.startswith(PNG_SIGNATURE):
        return _png_complaint(file, most)
    if file.startswith(b"\xff\xd8"):
        return _jpeg_complaint(file, most)
    return ""


def _png_complaint(file: bytes, most: int) -> str:
    place, chunks, profiles = len(PNG_SIGNATURE), 0, 0
    while place + 8 <= len(file):
        length, kind = int.from_bytes(file[place : place + 4]), file[place + 4 : place + 8]
        place += 12 + length
        chunks += 1
        profiles += kind == b"iCCP"
        if chunks > most:
            return f"more than {most} PNG chunks"
        if profiles > 1:
            return "more than one colour profile"
    return ""


def _jpeg_complaint(file: bytes, most: int) -> str:
    # In compressed data 0xFF is followed by 0 or a restart marker, so that the pair begins a scan wherever it stands
    # (or is in a thumbnail or a comment: of these there are few).
    if file.count(b"\xff\xda") > MOST_SCANS:
        return f"more than {MOST_SCANS} JPEG scans"
    place = 2
    for _ in range(most):
        if place + 1 >= len(file):
            return ""
        marker = file[place + 1]
        if file[place] != 0xFF or marker == 0xFF:  # junk or filling, which decoders skip byte by byte
            place += 1
        elif marker == 0xDA:  # the start of a scan
            return ""
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + max(2, int.from_bytes(file[place + 2 : place + 4]))
    return f"more than {most} JPEG segments"
