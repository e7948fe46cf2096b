"""Answers that are generated while they are sent, such as zip archives: their memory doesn't grow with their length."""

import io
import logging
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.digits.ink import Pixels
from api.formats import images
from api.http.problems import ProblemError
from api.threads import in_thread_if_large
from serving.contract import IMAGE_SIDE
from serving.tf_serving.client import ModelServerError

ZIP: Final = "application/zip"

_log: Final = logging.getLogger(__name__)

Files = tuple[list[str], Pixels, list[str]]  # names, images uint8 [N, 28, 28], and their lines of "labels.csv" or none

_T = TypeVar("_T")


class Stream(StreamingResponse):
    """An answer that is generated while it is sent. It breaks off if the model server fails after the status is sent.

    ``body`` yields its bytes; ``reads`` are the generators that it reads, innermost first. All are closed when the
    answer ends, also if it never begins. (The garbage collector would close each in a task of its own.)
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
                stack.push_async_callback(one.aclose)
            try:
                await super().__call__(scope, receive, send)
            except (ModelServerError, ProblemError) as error:
                _log.warning("%s %s broke off: %s", scope["method"], scope["path"], error)


def chunks(count: int, scale: int) -> Iterator[slice]:
    """Yields slices of ``count`` digits, each of about a mebibyte after enlarging."""
    step = max(1, 2**20 // (IMAGE_SIDE * scale) ** 2)
    for start in range(0, count, step):
        yield slice(start, start + step)


async def as_zip(
    batches: AsyncIterator[_T], files: Callable[[_T, int], Files], table_head: str, scale: int
) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit and, if they have lines, "labels.csv" as the last file.

    ``files`` returns the images of a batch; its second argument is how many images came before.
    """
    archive = ZipStream()
    lines: list[str] = []
    done = 0
    async for batch in batches:
        names, pixels, new_lines = files(batch, done)
        lines += new_lines
        done += len(names)
        for chunk in chunks(len(names), scale):
            pngs = (images.png(one, scale) for one in pixels[chunk])
            size = pixels[chunk].size * scale**2
            yield await in_thread_if_large(size, partial(archive.add, zip(names[chunk], pngs, strict=True)))
    if lines:
        yield archive.add([("labels.csv", "".join([table_head, *lines]).encode())])
    yield archive.finish()


class _Unsent(io.BytesIO):
    """A file that holds only its last bytes: those after the first ``sent``."""

    sent = 0

    def tell(self) -> int:
        return self.sent + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.sent + super().seek(offset - self.sent if whence == io.SEEK_SET else offset, whence)

    def take(self) -> bytes:
        content = self.getvalue()
        self.sent += len(content)
        self.__init__()  # type: ignore[misc]
        return content


class ZipStream(zipfile.ZipFile):
    """A zip archive that is sent while it is written: ``add`` and ``finish`` return its bytes. PNG is not deflated.

    It keeps about 400 bytes of memory a file until the end.
    """

    def __init__(self) -> None:
        self._unsent = _Unsent()
        super().__init__(self._unsent, "w")

    def __del__(self) -> None:
        """Does nothing: ZipFile's own writes the directory, which fails if the file was collected first."""

    def add(self, files: Iterable[tuple[str, bytes]]) -> bytes:
        for name, content in files:
            info = zipfile.ZipInfo(name)  # with the earliest date that zip knows: equal requests give equal bytes
            info.external_attr = 0o100644 << 16  # a regular file
            self.writestr(info, content)
        return self._unsent.take()

    def finish(self) -> bytes:
        self.close()
        return self._unsent.take()
