"""GET /: the studio. One page of static files, with nothing from outside and nothing inline.

The files are in ``api/studio``. Their URLs carry a hash of all of them, so a browser keeps them for a year and a new
release is seen at once; only the page itself is asked for each time.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.caching import FOREVER, REVALIDATE, matches
from api.problems import NOT_FOUND, ProblemError

_PAGE: Final = "index.html"
_PLACE: Final = b"%studio%"
"""Stands in the page for the path of the other files."""
_MEDIA_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "png": "image/png",
    "txt": "text/plain",
}


@dataclass(frozen=True)
class _File:
    """A file as it is sent: plain, or to those who take it, compressed."""

    content: bytes
    zipped: bytes
    media_type: str
    etag: str
    """Weak: one for both."""

    @classmethod
    def of(cls, name: str, content: bytes) -> "_File":
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return cls(content, gzip.compress(content, mtime=0), media_type, f'W/"{_digest(content)}"')

    def response(self, request: Request, cache: str) -> Response:
        headers = {"Vary": "Accept-Encoding", "Cache-Control": cache, "ETag": self.etag}
        if matches(request, self.etag):
            return Response(None, 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.zipped, 200, headers | {"Content-Encoding": "gzip"}, self.media_type)
        return Response(self.content, 200, headers, self.media_type)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _load() -> tuple[str, dict[str, _File]]:
    """Returns the hash of all files, and the files by name; the page with the others' URLs in it."""
    found = {one.name: one.read_bytes() for one in files("api").joinpath("studio").iterdir() if one.is_file()}
    release = _digest(b"".join(name.encode() + found[name] for name in sorted(found)))
    place = f"/studio/{release}".encode()
    found[_PAGE] = found[_PAGE].replace(_PLACE, place)
    return release, {name: _File.of(name, content) for name, content in found.items()}


_RELEASE, _FILES = _load()

router = APIRouter()


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The studio's page."""
    return _FILES[_PAGE].response(request, REVALIDATE)


@router.get("/studio/{release}/{name}", include_in_schema=False)
async def file(request: Request, release: str, name: str) -> Response:
    """A file that the page needs. One of another release is gone."""
    if release != _RELEASE or name not in _FILES:
        raise ProblemError(NOT_FOUND, "no such file of the studio")
    return _FILES[name].response(request, FOREVER)
