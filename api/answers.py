"""Digits in the formats of /generate: whole (JSON), or in pieces while they are made (zip, npy)."""

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

import anyio.to_thread
import orjson

from api import images
from api.images import Pixels
from api.sources import SeedSource, Source
from api.zipstream import ZipStream
from serving.contract import IMAGE_SIDE

_INLINE_PIXELS: Final = 16 * IMAGE_SIDE * IMAGE_SIDE
"""Up to here encoding takes about a millisecond, and a thread's detour isn't worth it."""

_CHUNK_BYTES: Final = 2**20

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def encode(pixels: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Returns ``function(*args)``; in a thread where so many pixels would hold up other requests."""
    if pixels <= _INLINE_PIXELS:
        return function(*args, **kwargs)
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))


def as_json(pixels: Pixels, source: Source, scale: int, *, model: str, version: int) -> bytes:
    """Returns the JSON answer: a PNG, and its seed if it has one, for each of ``pixels`` [N, 28, 28]."""
    entries: list[dict[str, Any]] = [{"png": base64.b64encode(images.png(image, scale)).decode()} for image in pixels]
    if isinstance(source, SeedSource):
        entries = [{"seed": seed, **entry} for seed, entry in zip(source.seeds, entries, strict=True)]
    return orjson.dumps({"model": model, "version": version, "images": entries})


def npy_length(count: int, scale: int) -> int:
    """Returns the bytes of the npy answer."""
    side = IMAGE_SIDE * scale
    return len(images.npy_header(count, side)) + count * side * side


async def as_npy(batches: AsyncIterator[Pixels], count: int, scale: int) -> AsyncIterator[bytes]:
    """Yields an ``.npy`` file of uint8 [count, 28·scale, 28·scale]."""
    yield images.npy_header(count, IMAGE_SIDE * scale)
    async for pixels in batches:
        for chunk in _chunks(pixels, scale):
            yield images.enlarge(chunk, scale).tobytes()


async def as_zip(batches: AsyncIterator[Pixels], source: Source, scale: int) -> AsyncIterator[bytes]:
    """Yields a zip with a PNG for each digit, named by its place and its seed if it has one: "003-17.png"."""
    archive = ZipStream()
    width = len(str(len(source) - 1))

    def entries(chunk: Pixels, start: int) -> bytes:
        return b"".join(
            archive.add(_name(source, index, width), images.png(image, scale))
            for index, image in enumerate(chunk, start)
        )

    done = 0
    async for pixels in batches:
        for chunk in _chunks(pixels, scale):
            yield await encode(chunk.size * scale**2, entries, chunk, done)
            done += len(chunk)
    yield archive.finish()


def _name(source: Source, index: int, width: int) -> str:
    seed = f"-{source.seeds[index]}" if isinstance(source, SeedSource) else ""
    return f"{index:0{width}}{seed}.png"


def _chunks(pixels: Pixels, scale: int) -> Iterator[Pixels]:
    """Yields ``pixels`` in parts of about a mebibyte after enlarging, and of one image at least."""
    step = max(1, _CHUNK_BYTES // (IMAGE_SIDE * scale) ** 2)
    for start in range(0, len(pixels), step):
        yield pixels[start : start + step]
