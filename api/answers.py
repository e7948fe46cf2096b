"""Digits in the formats of /generate: whole (JSON), or in pieces while they are made (zip, npy)."""

import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import orjson
from numpy.typing import NDArray
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import images
from api.images import Pixels
from api.labels import Labels
from api.making import Digits
from api.problems import ProblemError
from api.sources import SeedSource, Source
from api.threads import in_thread
from api.zipstream import ZipStream
from serving.client import ModelServerError
from serving.contract import IMAGE_SIDE

_log: Final = logging.getLogger(__name__)

_INLINE_PIXELS: Final = 16 * IMAGE_SIDE * IMAGE_SIDE
"""Up to here encoding takes about a millisecond, and a thread's detour isn't worth it."""

_LARGE_PIXELS: Final = 2**22
_LARGE: Final = anyio.CapacityLimiter(2)
"""How many large answers are encoded at a time: each takes two bytes a pixel, 130 MB for the largest."""

_CHUNK_BYTES: Final = 2**20

LABELS_FILE: Final = "labels.csv"
_LABELS_HEAD: Final = b"file,seed,digit,confidence\n"

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Stream(StreamingResponse):
    """An answer that is made while it is sent, of ``body``. ``made_from``: what that iterates over, innermost first.

    All of them are closed when the answer ends, also where it never begins. Left to the garbage collector, they would
    be closed at the same time, each by a task of its own: one would find its source being closed by another.

    Where the model server fails on the way, the answer breaks off, and the server closes the connection: nothing else
    can tell a client who has the status already.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        made_from: tuple[AsyncGenerator[Any], ...],
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(body, 200, headers, media_type)
        self._generators = (*made_from, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            for one in self._generators:
                await stack.enter_async_context(aclosing(one))
            try:
                await super().__call__(scope, receive, send)
            except (ModelServerError, ProblemError) as error:
                _log.warning("%s %s broke off: %s", scope["method"], scope["path"], error)


def is_quick(pixels: int) -> bool:
    """Whether so many pixels are encoded at once, and neither a thread nor a limit is worth its while."""
    return pixels <= _INLINE_PIXELS


async def encode(pixels: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Returns ``function(*args)``; in a thread where so many pixels would hold up other requests, and in its turn
    where so many would take much memory.
    """
    if is_quick(pixels):
        return function(*args, **kwargs)
    return await in_thread(lambda: function(*args, **kwargs), _LARGE if pixels > _LARGE_PIXELS else None)


def as_json(digits: Digits, source: Source, scale: int) -> bytes:
    """Returns the JSON answer: for each digit a PNG, its seed if it has one, and its label if that is known."""
    entries: list[dict[str, Any]] = [{} for _ in digits.pixels]
    if isinstance(source, SeedSource):
        for entry, seed in zip(entries, source.seeds, strict=True):
            entry["seed"] = seed
    if digits.labels is not None:
        for entry, (digit, confidence) in zip(entries, digits.labels.pairs(), strict=True):
            entry.update(digit=digit, confidence=confidence)
    for entry, image in zip(entries, digits.pixels, strict=True):
        entry["png"] = base64.b64encode(images.png(image, scale)).decode()
    return orjson.dumps({"model": digits.model, "version": digits.version, "images": entries})


def npy_length(count: int, scale: int) -> int:
    """Returns the bytes of the npy answer."""
    side = IMAGE_SIDE * scale
    return len(images.npy_header(count, side)) + count * side * side


async def as_npy(parts: AsyncIterator[Digits], count: int, scale: int) -> AsyncGenerator[bytes]:
    """Yields an ``.npy`` file of uint8 [count, 28·scale, 28·scale]."""
    yield images.npy_header(count, IMAGE_SIDE * scale)
    async for part in parts:
        for chunk in chunks(part.pixels, scale):
            yield images.enlarge(chunk, scale).tobytes()


async def as_zip(parts: AsyncIterator[Digits], source: Source, scale: int) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit, named by its place and its seed if it has one: "003-17.png".

    Where the digits have labels, a table of them comes last: LABELS_FILE.
    """
    archive = ZipStream()
    width = len(str(len(source) - 1))

    def entries(chunk: Pixels, start: int) -> bytes:
        return b"".join(
            archive.add(_name(source, index, width), images.png(image, scale))
            for index, image in enumerate(chunk, start)
        )

    done = 0
    table = bytearray()
    async for part in parts:
        if part.labels is not None:
            table += _rows(part.labels, source, done, width)
        for chunk in chunks(part.pixels, scale):
            yield await encode(chunk.size * scale**2, entries, chunk, done)
            done += len(chunk)
    if table:
        yield archive.add(LABELS_FILE, _LABELS_HEAD + bytes(table))
    yield archive.finish()


def _rows(labels: Labels, source: Source, start: int, width: int) -> bytes:
    """Returns the lines of LABELS_FILE for the digits from ``start`` on. Noise has no seed."""
    lines = []
    for index, (digit, confidence) in enumerate(labels.pairs(), start):
        seed = source.seeds[index] if isinstance(source, SeedSource) else ""
        lines.append(f"{_name(source, index, width)},{seed},{digit},{confidence}\n")
    return "".join(lines).encode()


def _name(source: Source, index: int, width: int) -> str:
    seed = f"-{source.seeds[index]}" if isinstance(source, SeedSource) else ""
    return f"{index:0{width}}{seed}.png"


def chunks(digits: NDArray[Any], scale: int) -> Iterator[NDArray[Any]]:
    """Yields ``digits`` [N] in parts of about a mebibyte of pixels after enlarging, and of one digit at least."""
    step = max(1, _CHUNK_BYTES // (IMAGE_SIDE * scale) ** 2)
    for start in range(0, len(digits), step):
        yield digits[start : start + step]
