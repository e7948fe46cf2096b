"""What every request passes before it reaches a route."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import BODY_TOO_LARGE, REQUEST_TIMEOUT, ProblemError, problem_response


class HeadAsGet:
    """Answers HEAD wherever GET is answered (RFC 9110, section 9.1). The server leaves the content out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body of more than ``max_bytes``: by its announced length, or as soon as that much has come; and one
    that hasn't all come after ``timeout_s``.

    So no request makes the gateway hold more than that, or longer, whatever it says about its length.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = ProblemError(BODY_TOO_LARGE, f"the body may have {self._max_bytes} bytes at most")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem_response(too_large, scope["path"])(scope, receive, send)
            return
        received, whole = 0, False
        end = asyncio.get_running_loop().time() + self._timeout_s

        async def counted() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()  # when the client leaves
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError as error:
                detail = f"the body took more than {self._timeout_s:g} s"
                raise ProblemError(REQUEST_TIMEOUT, detail, headers={"Connection": "close"}) from error
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise too_large
            return message

        await self._app(scope, counted, send)
