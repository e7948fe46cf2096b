"""The bodies of requests: their limits, media type, JSON, multipart, faults. The media type of the answer's body."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from api.http import problems
from api.http.problems import ProblemError, at_pointer, invalid
from api.state import KEY, GatewayState
from api.threads import in_thread_if_large

JSON: Final = "application/json"
_MESSAGES: Final = {"extra_forbidden": "There is no such field", "none_required": "is not supported"}
"""In place of pydantic's own, by the type of its error."""

MAX_CONTAINERS: Final = 2**17  # lists and objects in a JSON body, of 60 bytes and more; or one for each 128 bytes
MAX_VALUES: Final = 2**19  # in a JSON body; and one more for each 8 bytes beyond 4 MiB: numbers of noise take about 10
LARGE_BODY_BYTES: Final = 64 * 2**10  # a body up to this size fits into memory, on however many connections

_Model = TypeVar("_Model", bound=BaseModel)


class RouteWithBody(APIRoute):
    """Limits the size of a request's body, its time to arrive, and the memory of all large bodies together.

    Refuses a compressed body. (FastAPI's own ``max_body_size`` answers in plain text.)
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: GatewayState = scope["state"][KEY]
        most, timeout_s = gateway.settings.max_body_bytes, gateway.settings.body_timeout_s
        too_large = f"the body may have {most} bytes at most"
        close = {"Connection": "close"}  # where the gateway does not read the rest of the body
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and headers.get("content-encoding", "identity").strip().lower() != "identity":
            accepted = {"Accept-Encoding": "identity"}
            detail = "Content-Encoding: the body should not be compressed"
            raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, detail, headers=accepted)
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            raise ProblemError(problems.BODY_TOO_LARGE, too_large)
        deadline = asyncio.get_running_loop().time() + timeout_s
        size, complete, is_large = 0, False, False

        async def limited() -> Message:
            nonlocal size, complete, is_large
            if complete:
                return await receive()  # waits until the client disconnects
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
                    size += len(message.get("body", b""))
                    complete = not message.get("more_body", False)
                    if LARGE_BODY_BYTES < size <= most and not is_large:
                        if gateway.waiting_bodies.locked():
                            raise ProblemError(problems.BUSY, "too many large bodies are on their way", headers=close)
                        async with gateway.waiting_bodies:
                            await gateway.large_bodies.acquire()
                        is_large = True
            except TimeoutError as error:
                detail = f"the body took more than {timeout_s:g} s"
                raise ProblemError(problems.REQUEST_TIMEOUT, detail, headers=close) from error
            if size > most:
                raise ProblemError(problems.BODY_TOO_LARGE, too_large)
            return message

        try:
            await super().handle(scope, limited, send)
        finally:
            if is_large:
                gateway.large_bodies.release()


def negotiate(request: Request, offers: Sequence[str]) -> str:
    """Returns the media type out of ``offers``, best first, that ``Accept`` prefers (RFC 9110, section 12.5.1).

    The most specific range decides about an offer, and ``q=0`` excludes it. Of offers with equal quality, the one that
    is named more specifically wins, and then the first one. No header, or an empty one, accepts anything. Raises
    ProblemError (406) if every offer is excluded.
    """
    ranges = _ranges(",".join(request.headers.getlist("accept")))
    if not ranges:
        return offers[0]

    def rank(offer: str) -> tuple[float, int]:
        names = (offer, f"{offer.partition('/')[0]}/*", "*/*")
        matching = ((3 - names.index(name), quality) for name, quality in ranges if name in names)
        specificity, quality = max(matching, default=(0, 0.0))
        return quality, specificity

    best = max(offers, key=rank)
    if not rank(best)[0]:
        raise ProblemError(problems.NOT_ACCEPTABLE, f"available: {', '.join(offers)}", headers={"Vary": "Accept"})
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Returns the media ranges in lower case with their qualities. Java's HttpURLConnection sends ``*; q=.2``.

    A quality that is not a number from 0 to 1 makes the range one that matches nothing.
    """
    found = []
    for part in filter(str.strip, accept.lower().split(",")):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = -1.0
        found.append(("*/*" if name == "*" else name, quality) if 0 <= quality <= 1 else ("", 0.0))
    return found


def media_type(request: Request, accepted: Sequence[str]) -> str:
    """Returns the media type of the body, in lower case. Raises ProblemError (415) if it isn't in ``accepted``."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in accepted:
        expected = " or ".join(accepted)
        found = f"not {given[:100]}" if given else "and there is none"
        detail = f"Content-Type: should be {expected}, {found}"
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept": ", ".join(accepted)})
    return given


async def read_json(request: Request, model: type[_Model]) -> _Model:
    """Returns the JSON body as a ``model``. Raises ProblemError: 415 for another media type, and as ``parse_json``."""
    media_type(request, (JSON,))
    body = await request.body()
    return await in_thread_if_large(len(body), lambda: parse_json(body, model))


def parse_json(body: bytes, model: type[_Model]) -> _Model:
    """Returns JSON as a ``model``. Raises ProblemError: 400 if it isn't JSON, 422 naming each field at fault.

    JSON that would be 25 times its size in memory is refused before it is parsed. Brackets and commas are counted also
    in strings: base64 has none.
    """
    for most, what, count in (
        (max(MAX_CONTAINERS, len(body) // 128), "lists and objects", body.count(b"[") + body.count(b"{")),
        (MAX_VALUES + max(0, len(body) - 2**22) // 8, "values", body.count(b",") + 1),
    ):
        if count > most:
            raise invalid(at_pointer("", f"the body has more than {most} {what}"))
    try:
        content = from_json(body)  # a step of its own: no other thread runs during either of the two
    except ValueError as error:
        raise ProblemError(problems.MALFORMED_REQUEST, f"not JSON: {error}") from error
    return validated(model, content)


def validated(model: type[_Model], content: object) -> _Model:
    """Returns ``content`` as a ``model``. Raises ProblemError (422) naming each field at fault."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = []
        for one in error.errors(include_url=False, include_input=False):
            places = [f"/{field}" for field in one.get("ctx", {}).get("fields", ())]
            places = places or ["".join(f"/{escaped(part)}" for part in one["loc"])]
            found += [at_pointer(place, _MESSAGES.get(one["type"], one["msg"])) for place in places]
        raise invalid(*found[:20]) from error


class _Multipart(MultiPartParser):
    """Starlette's parser, which also counts the parts, and notes whether the body is whole."""

    parts = 0
    is_whole = False

    def on_part_begin(self) -> None:
        self.parts += 1
        super().on_part_begin()

    def on_end(self) -> None:
        self.is_whole = True


@asynccontextmanager
async def read_form(request: Request, *, max_files: int, max_fields: int) -> AsyncIterator[FormData]:
    """Yields the parts of a multipart body, and closes their files. Raises ProblemError (400, or 415 for a charset)."""
    # The charset names the codec of the fields, and Python has codecs that take minutes for a mebibyte (punycode).
    charset = parse_options_header(request.headers.get("content-type", ""))[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, "Content-Type: the charset should be utf-8")
    parser = _Multipart(request.headers, request.stream(), max_files=max_files, max_fields=max_fields)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(problems.MALFORMED_REQUEST, error.message) from error
    try:
        if not parser.is_whole:
            detail = f"the multipart body breaks off in part {parser.parts}: the boundary that ends it is missing"
            raise ProblemError(problems.MALFORMED_REQUEST, detail)
        yield form
    finally:
        await form.close()


def escaped(part: object) -> str:
    """Returns a part of a JSON pointer (RFC 6901), fit to be echoed: cut, and without half surrogate pairs."""
    return str(part)[:100].encode(errors="replace").decode().replace("~", "~0").replace("/", "~1")
