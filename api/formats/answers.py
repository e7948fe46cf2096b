"""Answers that take long to make: streams, zip archives, and the encoding of large answers in threads."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.formats import images
from api.formats.images import Pixels
from api.formats.zipstream import ZipStream
from api.http.problems import ProblemError
from api.threads import in_thread
from serving.contract import IMAGE_SIDE
from serving.tf_serving.client import ModelServerError

_log: Final = logging.getLogger(__name__)

_INLINE_PIXELS: Final = 16 * IMAGE_SIDE * IMAGE_SIDE
"""Up to here encoding takes about a millisecond, less than a thread is worth."""

_LARGE_PIXELS: Final = 2**22
_LARGE: Final = anyio.CapacityLimiter(2)
"""How many large answers are encoded at a time: each takes two bytes a pixel, 130 MB for the largest."""

_CHUNK_BYTES: Final = 2**20

LABELS_FILE: Final = "labels.csv"

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Stream(StreamingResponse):
    """An answer that is generated while it is sent.

    ``body`` yields its bytes; ``reads`` are the generators that it reads, innermost first.

    All generators are closed when the answer ends, also if it never begins. (The garbage collector would close each in
    a task of its own, some while they run.)

    If the model server fails on the way, the answer breaks off and the server closes the connection: the client has the
    status already, so nothing else can report the failure.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        reads: tuple[AsyncGenerator[Any], ...],
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(body, 200, headers, media_type)
        self._generators = (*reads, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            for one in self._generators:
                await stack.enter_async_context(aclosing(one))
            try:
                await super().__call__(scope, receive, send)
            except (ModelServerError, ProblemError) as error:
                _log.warning("%s %s broke off: %s", scope["method"], scope["path"], error)


async def encode(pixels: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Returns ``function(*args)``, run in a thread if so many ``pixels`` would block the event loop.

    Answers that take much memory are encoded two at a time.
    """
    if pixels <= _INLINE_PIXELS:
        return function(*args, **kwargs)
    return await in_thread(lambda: function(*args, **kwargs), _LARGE if pixels > _LARGE_PIXELS else None)


def chunks(count: int, scale: int) -> Iterator[slice]:
    """Yields slices of ``count`` digits: about a mebibyte of pixels after enlarging, and at least one digit."""
    step = max(1, _CHUNK_BYTES // (IMAGE_SIDE * scale) ** 2)
    for start in range(0, count, step):
        yield slice(start, start + step)


class Files(NamedTuple):
    """Images for an archive: names, pixels uint8 [N, 28, 28], and a line of LABELS_FILE for each (or no lines)."""

    names: list[str]
    pixels: Pixels
    lines: list[str]


async def as_zip(
    batches: AsyncIterator[_T], files: Callable[[_T, int], Files], table_head: str, scale: int
) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit and, if they have lines, LABELS_FILE as the last file.

    ``files`` returns the images of a batch; its second argument is how many images came before.
    """
    archive = ZipStream()
    lines: list[str] = []

    def add(names: list[str], pixels: Pixels) -> bytes:
        return b"".join(archive.add(name, images.png(one, scale)) for name, one in zip(names, pixels, strict=True))

    done = 0
    async for batch in batches:
        names, pixels, new_lines = files(batch, done)
        lines += new_lines
        done += len(names)
        for chunk in chunks(len(names), scale):
            yield await encode(pixels[chunk].size * scale**2, add, names[chunk], pixels[chunk])
    if lines:
        yield archive.add(LABELS_FILE, "".join([table_head, *lines]).encode())
    yield archive.finish()
