"""What every request passes before it reaches a route."""

import asyncio
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import BODY_TOO_LARGE, BUSY, REQUEST_TIMEOUT, ProblemError, problem_response

FREE_BYTES: Final = 64 * 2**10
"""A body up to here is never given up: however many connections there are, it fits."""


class HeadAsGet:
    """Answers HEAD wherever GET is answered (RFC 9110, section 9.1). The server leaves the content out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


@dataclass(eq=False)
class _Body:
    """A body that is or was on its way: ``size`` so far. ``waiting``: for the next piece of it, if it is."""

    size: int = 0
    whole: bool = False
    given_up: bool = False
    waiting: asyncio.Timeout | None = None

    def give_up(self) -> None:
        """Has its request refused, now or when it asks for the next piece."""
        self.given_up = True
        if self.waiting is not None:
            self.waiting.reschedule(asyncio.get_running_loop().time())


class BodyLimit:
    """Refuses a body of more than ``max_bytes``: by its announced length, or as soon as that much has come; and one
    that hasn't all come after ``timeout_s``.

    So no request makes the gateway hold more than that, or longer, whatever it says about its length. All bodies of
    more than FREE_BYTES together are held to ``max_total_bytes``, by giving up the one that has been on its way the
    longest.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float, max_total_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_total_bytes = max_total_bytes
        self._metrics = metrics
        self._bodies: dict[_Body, None] = {}  # in the order of their arrival

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = ProblemError(BODY_TOO_LARGE, f"the body may have {self._max_bytes} bytes at most")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem_response(too_large, scope["path"])(scope, receive, send)
            return
        body = _Body()
        end = asyncio.get_running_loop().time() + self._timeout_s

        async def counted() -> Message:
            if body.whole:
                return await receive()  # when the client leaves
            try:
                async with asyncio.timeout_at(end) as body.waiting:
                    message = await receive()
            except TimeoutError as error:
                if body.given_up:
                    raise self._too_many() from error
                detail = f"the body took more than {self._timeout_s:g} s"
                raise ProblemError(REQUEST_TIMEOUT, detail, headers={"Connection": "close"}) from error
            finally:
                body.waiting = None
            body.whole = not message.get("more_body", False)
            body.size += len(message.get("body", b""))
            if body.size > self._max_bytes:
                raise too_large
            if body.size > FREE_BYTES:
                self._bodies[body] = None
                self._make_room(body)
            if body.given_up:
                raise self._too_many()
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._bodies.pop(body, None)

    def _make_room(self, latest: _Body) -> None:
        """Gives up bodies until the others fit: the slowest, and ``latest`` where all others are being worked on."""
        while sum(body.size for body in self._bodies) > self._max_total_bytes:
            slowest = next((body for body in self._bodies if not body.whole), latest)
            del self._bodies[slowest]
            slowest.give_up()
            self._metrics.cut_off.labels("unfinished bodies").inc()

    def _too_many(self) -> ProblemError:
        detail = f"the bodies on their way have more than {self._max_total_bytes} bytes"
        return ProblemError(BUSY, detail, headers={"Connection": "close"})
