"""The formats of generated digits: how each is named, bounded and encoded. A new format is one entry of FORMATS."""

import base64
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
from PIL import Image

from api.digits.making import Digits
from api.formats import images
from api.formats.streams import ZIP, Files, as_zip, chunks
from api.http.bodies import JSON
from api.http.problems import at_pointer, invalid
from serving.contract import IMAGE_SIDE


@dataclass(frozen=True)
class Format:
    """A format of digits: encoded whole, or in batches while they are generated."""

    suffix: str
    # Of the digits, the scale, and the milliseconds a frame.
    encode: Callable[[Digits, int, int], bytes] | None = None
    # Of the batches, the count and the scale.
    batches: Callable[[AsyncIterator[Digits], int, int], AsyncGenerator[bytes]] | None = None
    # In bytes, of count and scale, where it is known before.
    length: Callable[[int, int], int] | None = None
    has_labels: bool = False
    animated: bool = False


def _json(digits: Digits, scale: int, _frame_ms: int) -> bytes:
    entries = []
    for place, image in enumerate(digits.pixels):
        entry: dict[str, Any] = {}
        if digits.seeds is not None:
            entry["seed"] = digits.seeds[place]
        if digits.labels is not None:
            entry["digit"], entry["confidence"] = digits.labels[place]
        entry["png"] = base64.b64encode(images.png(image, scale)).decode()
        entries.append(entry)
    return orjson.dumps({"model": digits.model, "version": digits.version, "images": entries})


def _animation(kind: str, options: dict[str, Any], digits: Digits, scale: int, frame_ms: int) -> bytes:
    """Returns the digits as a lossless animation that repeats forever, in Pillow's format ``kind``."""
    first, *rest = (Image.fromarray(frame) for frame in images.enlarge(digits.pixels, scale))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest, duration=frame_ms, loop=0, **options)
    return file.getvalue()


def _npy_length(count: int, scale: int) -> int:
    side = IMAGE_SIDE * scale
    return len(images.npy_header(np.uint8, count, side, side)) + count * side * side


async def _npy(batches: AsyncIterator[Digits], count: int, scale: int) -> AsyncGenerator[bytes]:
    """Yields an ``.npy`` file of uint8 [count, 28·scale, 28·scale]."""
    side = IMAGE_SIDE * scale
    yield images.npy_header(np.uint8, count, side, side)
    async for batch in batches:
        for chunk in chunks(len(batch.pixels), scale):
            yield images.enlarge(batch.pixels[chunk], scale).tobytes()


def _zip(batches: AsyncIterator[Digits], count: int, scale: int) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit, named by its place and its seed if it has one: "003-17.png"."""
    width = len(str(count - 1))

    def files(digits: Digits, start: int) -> Files:
        seeds = [""] * len(digits.pixels) if digits.seeds is None else list(map(str, digits.seeds))
        names = [f"{place:0{width}}{seed and f'-{seed}'}.png" for place, seed in enumerate(seeds, start)]
        if digits.labels is None:
            return names, digits.pixels, []
        rows = zip(names, seeds, digits.labels, strict=True)
        lines = [f"{name},{seed},{digit},{confidence}\n" for name, seed, (digit, confidence) in rows]
        return names, digits.pixels, lines

    return as_zip(batches, files, "file,seed,digit,confidence\n", scale)


FORMATS: Final = {  # by media type, the best ones first
    JSON: Format("json", encode=_json, has_labels=True),
    images.PNG: Format("png", encode=lambda digits, scale, _frame_ms: images.png(images.sheet(digits.pixels), scale)),
    ZIP: Format("zip", batches=_zip, has_labels=True),
    images.NPY: Format("npy", batches=_npy, length=_npy_length),
    "image/apng": Format("png", encode=partial(_animation, "PNG", {"compress_level": 6}), animated=True),
    "image/webp": Format(
        "webp", encode=partial(_animation, "WEBP", {"lossless": True, "quality": 20, "method": 0}), animated=True
    ),
    # All 256 shades fit into the palette; without this option Pillow would look for a smaller one.
    "image/gif": Format("gif", encode=partial(_animation, "GIF", {"optimize": False}), animated=True),
}


def check_size(media_type: str, count: int, most: int, scale: int, max_pixels: int, fields: Sequence[str]) -> None:
    """Raises ProblemError (422) for more than ``most`` images, or more than ``max_pixels`` pixels in memory.

    ``fields`` are the request's fields that determine the count, the more important one first.
    """
    if count > most:
        detail = f"{count} images; at most {most} are made as {media_type}"
        raise invalid(*(at_pointer(f"/{field}", detail) for field in fields))
    height, width = images.sheet_shape(count) if media_type == images.PNG else (count * IMAGE_SIDE, IMAGE_SIDE)
    pixels = height * width * scale**2
    if FORMATS[media_type].encode and pixels > max_pixels:
        detail = f"{pixels} pixels; at most {max_pixels} are made as {media_type}"
        raise invalid(at_pointer("/scale", detail), at_pointer(f"/{fields[0]}", detail))
