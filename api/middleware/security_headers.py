"""Header fields that limit what browsers do with an answer: on every answer, errors included."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The policy of answers other than pages: images, JSON, problem documents."""
PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The policy of pages: scripts, styles and images come from the gateway's own files, and nothing is inline."""

ALWAYS: Final[Sequence[tuple[str, str]]] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
POLICY: Final = "Content-Security-Policy"


class SecurityHeaders:
    """ASGI middleware: adds the fields that an answer hasn't set itself. Outermost, so that no answer misses it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_security_headers(MutableHeaders(scope=message), message["status"])
            await send(message)

        await self._app(scope, receive, with_fields)


def add_security_headers(headers: MutableHeaders, status: int) -> None:
    """Adds the fields that an answer with ``headers`` hasn't set itself."""
    for name, value in ALWAYS:
        headers.setdefault(name, value)
    # The fields of a 304 replace those of the stored answer (RFC 9111, 3.2), and it has no type.
    if status != 304:
        is_page = headers.get("content-type", "").startswith("text/html")
        headers.setdefault(POLICY, PAGE if is_page else NOTHING)
