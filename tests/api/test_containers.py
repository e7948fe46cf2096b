"""Image files of few pixels and much work are refused before a decoder sees them, and ordinary ones never."""

import zlib

import numpy as np
import pytest
from PIL import Image

from api.digits.containers import MOST_SCANS, complaint
from api.digits.fit import ImageError, read_digit
from tests.support.pictures import chunk, png_of, saved

LIMIT = 8 * 2**20
"""The largest body."""


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    file = png_of(28, 28, bytes(29 * 28), before=before)
    return file[:-12] + after + file[-12:]


def jpeg(before: bytes = b"") -> bytes:
    file = saved(Image.new("L", (28, 28)), "JPEG")
    return file[:2] + before + file[2:]


def progressive(scans: int) -> bytes:
    """16 million pixels, passed over so often: a few bytes each time."""
    whole = saved(Image.new("L", (4096, 4096)), "JPEG", progressive=True)
    starts = [place for place in range(len(whole)) if whole.startswith(b"\xff\xda", place)]
    return whole[: starts[1]] + whole[starts[1] : starts[2]] * scans + whole[starts[1] :]


def filled(piece: bytes) -> bytes:
    return piece * ((LIMIT - 2000) // len(piece))


MEBIBYTE = zlib.compress(bytes(2**20 - 1), 9)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param(png(filled(chunk(b"abCd"))), "PNG chunks", id="chunks before the pixels"),
        pytest.param(png(b"", filled(chunk(b"abCd"))), "PNG chunks", id="chunks after the pixels"),
        pytest.param(png(filled(chunk(b"IDAT"))), "PNG chunks", id="pixels in crumbs"),
        pytest.param(png(filled(chunk(b"iCCP", b"a\0\0" + MEBIBYTE))), "more than one colour profile", id="profiles"),
        pytest.param(png(filled(chunk(b"zTXt", b"a\0\0" + MEBIBYTE))), "damaged|PNG chunks", id="compressed text"),
        pytest.param(jpeg(filled(b"\xff\xfe\0\2")), "JPEG segments", id="comments"),
        pytest.param(jpeg(b"\xff" * (LIMIT - 2000)), "JPEG segments", id="filling"),
        pytest.param(jpeg(b"\0" * (LIMIT - 2000)), "JPEG segments", id="junk"),
        pytest.param(
            jpeg((b"\xff\xf0" + b"\xff\xff" + filled(b"\xff\xfe\0\2")[:-1])[: LIMIT - 2000]),
            "JPEG segments",
            id="a jump over them",
        ),
        pytest.param(progressive(20_000), f"more than {MOST_SCANS} JPEG scans", id="scans"),
    ],
)
def test_much_work_in_few_pixels_is_refused_before_it_is_done(file: bytes, words: str) -> None:
    """Each takes from a second and a half to minutes of decoding, but for the text, which Pillow limits itself."""
    assert len(file) <= LIMIT
    with pytest.raises(ImageError, match=words):
        read_digit(file, max_pixels=4096 * 4096)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("side", [1, 28, 1500])
def test_nothing_speaks_against_ordinary_images(kind: str, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    for options in ({}, {"progressive": True}) if kind == "JPEG" else ({}, {"compress_level": 0}):
        assert complaint(saved(pixels, kind, icc_profile=bytes(70_000), **options)) == ""


def test_a_file_that_ends_early_is_the_decoders_to_refuse() -> None:
    for whole in (png(), jpeg()):
        assert {complaint(whole[:length]) for length in range(len(whole))} == {""}
