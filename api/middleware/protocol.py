"""HTTP/1.1 by uvicorn, with limits on headers, pipelining and slow clients, and problem documents for errors.

While the service is full, it also refuses requests for images before the application runs.
"""

import asyncio
import re
from functools import lru_cache, partial
from typing import Any, Final

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.http.problems import (
    BUSY,
    HEADER_TOO_LARGE,
    MALFORMED_REQUEST,
    OIP_PREFIX,
    REQUEST_TIMEOUT,
    ProblemError,
    problem_response,
)
from api.middleware.admission import MAX_SMALL_BODY_BYTES, OVERLOAD, AdmissionControl, image_route
from api.middleware.connections import MIN_READ_BYTES, SPARE_CONNECTIONS, ConnectionLimits
from api.middleware.keys import OPEN
from api.middleware.security_headers import SecurityHeaders, add_security_headers
from api.telemetry import observation
from api.telemetry.metrics import Metrics

MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_HEADER_FIELDS: Final = 100
MAX_PIPELINED: Final = 100
"""Requests on a connection that wait for the answer before theirs."""

_OPEN: Final = tuple(path.encode() for path in OPEN)
_SURPLUS_TIMEOUT_S: Final = 1.0
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_MALFORMED: Final = ProblemError(MALFORMED_REQUEST, "not an HTTP/1.1 request")


class Protocol(HttpToolsProtocol):
    """One connection.

    A request's task is cancelled when its client disconnects. An error in a request is answered after the answers to
    the requests before it; then the connection closes.
    """

    limits = ConnectionLimits()
    admission: AdmissionControl
    metrics: Metrics
    refuses_early = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task: asyncio.Task[Any] | None = None
        self._running: RequestResponseCycle | None = None
        self._abandoned = self._ended = self._surplus = False
        self._in_header = self._has_cycle = False
        self._framing_bytes = 0
        self._header_since: float | None = None
        self._route: str | None = None
        self._undecided: bytearray | None = None
        self.unread_since = 0.0
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first header. Refuses a connection far beyond the limit."""
        super().connection_made(transport)
        self._header_since = self.loop.time()
        surplus = len(self.connections) - self.limits.connections
        self._surplus = surplus > 0
        if surplus > SPARE_CONNECTIONS:
            self.disconnect("connections")
        elif surplus > 0:
            self.metrics.cut_off.labels("connections").inc()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the work for the connection."""
        super().connection_lost(exc)
        self._abandon()

    def data_received(self, data: bytes) -> None:
        """Parses a piece of a request."""
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._framing_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if not self._ended:
                cause = error.__context__
                self._end(cause if isinstance(cause, ProblemError) else _MALFORMED)
            return
        if self._framing_bytes > MAX_HEADER_BYTES:
            self._end(ProblemError(HEADER_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes"))
        elif self._header_since is None and (self._in_header or self._undecided is not None or self._idle):
            self._header_since = self.loop.time()

    def on_message_begin(self) -> None:
        """Begins a header."""
        super().on_message_begin()
        self._in_header, self._has_cycle, self._framing_bytes = True, False, 0

    def on_headers_complete(self) -> None:
        """Checks a header. Starts or refuses its request, or waits for the body to decide. Raises ProblemError."""
        self._in_header, self._framing_bytes, self._header_since = False, 0, None
        self._check_header()
        if self.parser.should_upgrade():
            return
        self._route = None
        refused: bool | None = False
        if self.refuses_early and self._idle:
            path = self.url.partition(b"?")[0].decode("ascii", "replace")
            self._route = image_route(self.parser.get_method().decode("ascii"), path)
            if self._route is not None:
                refused = self.admission.refuses_early(self._route)
        if refused:
            self._refuse()
        elif refused is None and not self.expect_100_continue:
            self._undecided = bytearray()
        else:
            self._start()

    def on_body(self, body: bytes) -> None:
        """Takes a piece of a body. Drops it if the request was refused."""
        self._framing_bytes = 0
        if self._undecided is not None:
            self._undecided += body
            if len(self._undecided) > MAX_SMALL_BODY_BYTES:
                self._start()
        elif self._has_cycle:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request. One that waited for its body is refused or started."""
        if self._undecided is not None:
            assert self._route
            if self._idle and self.admission.refuses_early(self._route, bytes(self._undecided)):
                self._undecided = None
                self._refuse()
            else:
                self._start()
        if self._has_cycle:
            super().on_message_complete()
            self._has_cycle = False
            if self._route is not None:
                self.admission.note_arrival(self.loop)

    def resume_writing(self) -> None:
        """Begins anew to measure how fast the client reads."""
        self._unread_bytes = 0
        super().resume_writing()

    def check(self, now: float) -> int:
        """Ends the connection if its client is too slow; returns the bytes that the client has not read yet."""
        timeout_s = self.limits.header_timeout_s if not self._surplus else _SURPLUS_TIMEOUT_S
        if self._header_since is not None and now - self._header_since >= timeout_s and not self._ended:
            if self._in_header or self._undecided is not None:
                self._end(ProblemError(REQUEST_TIMEOUT, f"the request took more than {timeout_s:g} s"))
            else:
                self.transport.close()
        unread = self.transport.get_write_buffer_size()
        if self._unread_bytes == 0 or self._unread_bytes - unread >= MIN_READ_BYTES:
            self._unread_bytes, self.unread_since = unread, now
        self._unread_bytes = max(self._unread_bytes, unread) if unread else 0
        if unread and now - self.unread_since >= self.limits.send_timeout_s:
            self.disconnect("unread answers")
            return 0
        return unread

    def disconnect(self, why: str) -> None:
        """Closes the connection immediately and drops the rest of its answer."""
        self.metrics.cut_off.labels(why).inc()
        self._ended = True
        self.transport.abort()

    @property
    def _idle(self) -> bool:
        """Whether no answer is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._run, app))

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application for one request until ``_abandon``."""
        self._task = asyncio.current_task()
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._abandoned:
                raise
        finally:
            self._task = None

    def _abandon(self) -> None:
        """Cancels the request in progress."""
        self._abandoned = True
        if self._running is not None:
            self._running.disconnected = True
        if self._task is not None:
            self._task.cancel()

    def _parse(self, data: bytes) -> None:
        """Feeds the parser. Ignores requests to upgrade, as RFC 9110 (section 7.8) allows.

        The parser would skip the body of such a request and take it for a request of its own. So the header is parsed
        again without the field ``Upgrade``.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                version = self.parser.get_http_version().encode()
                lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
                lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
                data = data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(b"\r\n".join((*lines, b"\r\n")))

    def _check_header(self) -> None:
        """Raises ProblemError for a header that is too large, not HTTP/1.1's, or on a connection beyond the limits."""
        if self._ended:
            raise _MALFORMED
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADER_FIELDS:
            limits = f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADER_FIELDS} fields"
            raise ProblemError(HEADER_TOO_LARGE, limits)
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        if version not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise _MALFORMED
        if (len(hosts) != 1 and not (version == "1.0" and not hosts)) or not all(map(_HOST.fullmatch, hosts)):
            raise ProblemError(MALFORMED_REQUEST, "the header needs one field Host with the name of the server")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            raise ProblemError(MALFORMED_REQUEST, "HTTP/1.0 has no Transfer-Encoding")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ProblemError(MALFORMED_REQUEST, f"more than {MAX_PIPELINED} requests wait on the connection")
        if self._surplus and not self.url.startswith(_OPEN):
            raise ProblemError(BUSY, f"there are {self.limits.connections} connections already")

    def _start(self) -> None:
        """Hands the request to the application."""
        super().on_headers_complete()
        self._has_cycle = True
        body, self._undecided = self._undecided, None
        if body:
            super().on_body(bytes(body))

    def _refuse(self) -> None:
        """Answers that the service is full, and drops what is still to come of the request."""
        assert self._route
        self.metrics.count_refusal(self._route, self.parser.get_method().decode("ascii"))
        # A client that waits for 100 Continue may send the body or not: the next request could not be recognised.
        close = self.expect_100_continue or not self.parser.should_keep_alive()
        head, body = _refusal(OIP_PREFIX if self.url.startswith(OIP_PREFIX.encode()) else "", close)
        request_id = observation.request_id(self.headers).encode()
        self.transport.write(b"%b%b: %b\r\n\r\n%b" % (head, observation.HEADER, request_id, body))
        if close:
            self._ended = True
            self.transport.close()

    def _end(self, error: ProblemError) -> None:
        """Answers ``error`` in its turn and closes the connection. Nothing more is read from it."""
        self._ended = True
        self._undecided = None
        self.metrics.requests.labels("none", "other", str(error.problem.status)).inc()
        if self._has_cycle and self.pipeline:
            self.pipeline.popleft()  # the request at fault
        elif self._has_cycle and not self._idle:
            self._abandon()
        broken = self._has_cycle and not self.pipeline and self.cycle.response_started
        if broken or self.transport.is_closing():
            self.transport.close()
            return
        waits = not self._idle and not self.cycle.disconnected
        scope: Any = {"type": "http", "method": "GET", "path": "", "headers": []}
        self.cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        app: Any = SecurityHeaders(problem_response(error, ""))
        if waits:
            self.pipeline.appendleft((self.cycle, app))
        else:
            self._start_asgi_task(self.cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answers a malformed request by a problem document."""
        self._end(_MALFORMED)


@lru_cache(maxsize=4)
def _refusal(prefix: str, close: bool) -> tuple[bytes, bytes]:
    """Returns the 503 for paths with ``prefix``: the status line and fields, and the body."""
    response = problem_response(OVERLOAD, prefix)
    add_security_headers(response.headers, response.status_code)
    if close:
        response.headers["connection"] = "close"
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + lines, bytes(response.body)


def protocol(
    limits: ConnectionLimits, admission: AdmissionControl, metrics: Metrics, *, refuses_early: bool
) -> type[Protocol]:
    """Returns the protocol with these limits. ``refuses_early``: before the application runs."""
    settings = {"limits": limits, "admission": admission, "metrics": metrics, "refuses_early": refuses_early}
    return type("Protocol", (Protocol,), settings)
