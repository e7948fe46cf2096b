"""Limits on request bodies."""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import BODY_TOO_LARGE, BUSY, REQUEST_TIMEOUT, ProblemError, ProblemType, problem_response

LARGE_BODY_BYTES: Final = 64 * 2**10
"""A body up to this size fits into memory, however many connections there are."""

MAX_WAITING_BODIES: Final = 256
"""Large bodies that wait for others. Each takes up to 256 KB: what is read of it at once."""


class LimitBodies:
    """ASGI middleware: limits the size of a body, its time to arrive, and the memory of all large bodies together.

    FastAPI's own ``max_body_size`` answers in plain text, and here every error is a problem document.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float, max_large_bodies: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._large_bodies = asyncio.Semaphore(max_large_bodies)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        too_large = f"the body may have {self._max_bytes} bytes at most"
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            error = ProblemError(BODY_TOO_LARGE, too_large)
            await problem_response(error, scope["path"])(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._timeout_s
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
                    if LARGE_BODY_BYTES < size <= self._max_bytes and not is_large:
                        await self._wait_for_memory()
                        is_large = True
            except TimeoutError as error:
                raise _last(REQUEST_TIMEOUT, f"the body took more than {self._timeout_s:g} s") from error
            if size > self._max_bytes:
                raise ProblemError(BODY_TOO_LARGE, too_large)
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            if is_large:
                self._large_bodies.release()

    async def _wait_for_memory(self) -> None:
        """Waits until there are fewer large bodies. Raises ProblemError (503) if too many requests wait already."""
        if self._waiting >= MAX_WAITING_BODIES:
            raise _last(BUSY, "too many large bodies are on their way")
        self._waiting += 1
        try:
            await self._large_bodies.acquire()
        finally:
            self._waiting -= 1


def _last(problem: ProblemType, detail: str) -> ProblemError:
    """Returns a problem with an answer that ends the connection: the gateway does not read the rest of the body."""
    return ProblemError(problem, detail, headers={"Connection": "close"})
