"""Uvicorn's HTTP/1.1, with bounds on what comes before a request is one, and problem documents for what never is."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.problems import (
    HEADER_TOO_LARGE,
    MALFORMED_REQUEST,
    REQUEST_TIMEOUT,
    ProblemError,
    problem_response,
)
from api.security_headers import ALWAYS, NOTHING, POLICY

MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_HEADER_FIELDS: Final = 100


class HeaderRefusedError(Exception):
    """Ends the parsing of a request whose header is too large."""


class Protocol(HttpToolsProtocol):
    """One connection. A header has ``header_timeout_s`` to arrive, from the connection or its first byte on."""

    header_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_header = False
        self._header_bytes = 0
        self._refusal = ProblemError(MALFORMED_REQUEST, "not an HTTP/1.1 request")
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first header."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request; refuses a header that has no end."""
        was_in_header = self._in_header
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_header and self._in_header:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(ProblemError(HEADER_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes"))
                return
        if self._in_header or self.cycle is None or self.cycle.response_complete:
            self._start_timer()

    def on_message_begin(self) -> None:
        """The first byte of a header."""
        super().on_message_begin()
        self._in_header, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """The last one."""
        self._in_header = False
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADER_FIELDS:
            limits = f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADER_FIELDS} fields"
            self._refusal = ProblemError(HEADER_TOO_LARGE, limits)
            raise HeaderRefusedError
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what isn't a request, as a problem document, and closes the connection."""
        self._refuse(self._refusal)

    def _refuse(self, error: ProblemError) -> None:
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:  # else an answer is under way: nothing fits in between
            self.transport.write(_answer(error))
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_header:
            self._refuse(ProblemError(REQUEST_TIMEOUT, f"the header took more than {self.header_timeout_s:g} s"))
        else:
            self.transport.close()


def protocol(header_timeout_s: float) -> type[Protocol]:
    """Returns the protocol with this timeout."""
    return type("Protocol", (Protocol,), {"header_timeout_s": header_timeout_s})


def _answer(error: ProblemError) -> bytes:
    response = problem_response(error, path="")
    fields = {**response.headers, **{name.lower(): value for name, value in ALWAYS}}
    fields |= {POLICY.lower(): NOTHING, "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return STATUS_LINE[error.problem.status] + lines.encode() + b"\r\n" + bytes(response.body)
