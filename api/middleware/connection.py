"""A client's connection: HTTP/1.1 by uvicorn, with limits, and with problem documents for errors.

While the service is full, requests for images are refused here, before the application runs. Slow clients are usually
a reverse proxy's job; these limits keep the gateway's memory bounded without one.
"""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.http import current_request, problems
from api.http.problems import OIP_PREFIX, ProblemError, problem_response
from api.middleware.admission import FULL, MAX_SMALL_BODY_BYTES
from api.middleware.every_request import add_security_headers
from api.middleware.keys import OPEN
from api.state import KEY, GatewayState

MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_HEADER_FIELDS: Final = 100
MAX_PIPELINED: Final = 100  # requests on a connection that wait for the answer before theirs
MIN_READ_BYTES: Final = 64 * 2**10  # of its answer, that a client has to read within the timeout; or all that is left
STREAM_BYTES: Final = 2**20  # of an answer in progress besides its unread bytes: two batches, and their encoding
SPARE_CONNECTIONS: Final = 256  # beyond the limit: health checks get their answers there, all other requests 503

_OPEN: Final = tuple(path.encode() for path in OPEN)
_SURPLUS_TIMEOUT_S: Final = 1.0
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_NOT_HTTP: Final = "not an HTTP/1.1 request"


class Connection(HttpToolsProtocol):
    """One connection. A request's task is cancelled when its client disconnects.

    An error in a request is answered after the answers to the requests before it; then the connection closes. While the
    service is full, the task of a request for images waits for a small body, which shows whether to refuse the request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        state: GatewayState = self.app_state[KEY]
        self._settings, self._admission, self._metrics = state.settings, state.admission, state.metrics
        settings = state.settings
        # An early refusal has no line in the access log, no trace and no CORS fields.
        self._refuses_early = not (settings.access_log or settings.tracing or settings.cors_origins)
        self._task: asyncio.Task[Any] | None = None
        self._running: RequestResponseCycle | None = None
        self._ended = self._surplus = self._in_header = self._has_cycle = self._waits = False
        self._framing_bytes = 0
        self._header_since: float | None = None
        self._image_route = ""
        self.unread_since = 0.0
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first header. Refuses a connection far beyond the limit."""
        super().connection_made(transport)
        self._header_since = self.loop.time()
        surplus = len(self.connections) - self._settings.max_connections
        self._surplus = surplus > 0
        if surplus > SPARE_CONNECTIONS:
            self.disconnect("connections")
        elif surplus > 0:
            self._metrics.cut_off.labels("connections").inc()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._abandon()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._framing_bytes += len(data)
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    self._drop_upgrade()
                    data = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self._ended:
                cause = error.__context__
                self._end(cause if isinstance(cause, ProblemError) else _malformed(_NOT_HTTP))
            return
        if self._framing_bytes > MAX_HEADER_BYTES:
            self._end(ProblemError(problems.HEADER_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes"))
        elif self._header_since is None and (self._in_header or self._waits or self._idle):
            self._header_since = self.loop.time()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_header, self._has_cycle, self._framing_bytes = True, False, 0

    def on_headers_complete(self) -> None:
        """Checks a header, and starts its request. Raises ProblemError."""
        self._in_header, self._framing_bytes, self._header_since = False, 0, None
        self._check_header()
        if self.parser.should_upgrade():
            return
        self._image_route = ""
        if self._refuses_early and self._idle and not self.expect_100_continue:
            path = self.url.partition(b"?")[0].decode("ascii", "replace")
            self._image_route = self._admission.image_route(self.parser.get_method().decode("ascii"), path)
        self._waits = bool(self._image_route) and self._admission.crowded
        super().on_headers_complete()
        self._has_cycle = True

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)
        if self._waits and len(self.cycle.body) > MAX_SMALL_BODY_BYTES:
            self._go_on()

    def on_message_complete(self) -> None:
        """Ends a request. One for images is refused if the service is full."""
        if not self._has_cycle:
            return
        self._has_cycle = False
        if self._waits and self._admission.refuses_early(self._image_route, self.cycle.body):
            self._refuse()
            return
        super().on_message_complete()
        if self._waits:
            self._go_on()
        if self._image_route:
            self._admission.note_arrival(self._image_route, self.cycle.body)

    def resume_writing(self) -> None:
        """Begins anew to measure how fast the client reads."""
        self._unread_bytes = 0
        super().resume_writing()

    def check(self) -> int:
        """Ends the connection if its client is too slow; returns the bytes that the client has not read yet."""
        now = self.loop.time()
        timeout_s = self._settings.header_timeout_s if not self._surplus else _SURPLUS_TIMEOUT_S
        if self._header_since is not None and now - self._header_since >= timeout_s and not self._ended:
            if self._in_header or self._waits:
                self._end(ProblemError(problems.REQUEST_TIMEOUT, f"the request took more than {timeout_s:g} s"))
            else:
                self.transport.close()
        unread = self.transport.get_write_buffer_size()
        if self._unread_bytes == 0 or self._unread_bytes - unread >= MIN_READ_BYTES:
            self._unread_bytes, self.unread_since = unread, now
        self._unread_bytes = max(self._unread_bytes, unread) if unread else 0
        if unread and now - self.unread_since >= self._settings.send_timeout_s:
            self.disconnect("unread answers")
            return 0
        return unread

    def disconnect(self, why: str) -> None:
        """Closes the connection immediately and drops the rest of its answer."""
        self._metrics.cut_off.labels(why).inc()
        self._ended = True
        self.transport.abort()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._waits:
            return
        self._running = cycle
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _abandon(self) -> None:
        """Cancels the request in progress."""
        if self._running is not None:
            self._running.disconnected = True
        if self._task is not None:
            self._task.cancel()

    def _drop_upgrade(self) -> None:
        """Ignores a request to upgrade, as RFC 9110 (section 7.8) allows: parses its header again without ``Upgrade``.

        Otherwise the parser would skip the request's body and take it for a request of its own.
        """
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join((*lines, b"\r\n")))

    def _check_header(self) -> None:
        """Raises ProblemError for a header that is too large, not HTTP/1.1's, or on a connection beyond the limits."""
        if self._ended:
            raise _malformed(_NOT_HTTP)
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADER_FIELDS:
            limits = f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADER_FIELDS} fields"
            raise ProblemError(problems.HEADER_TOO_LARGE, limits)
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        if version not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise _malformed(_NOT_HTTP)
        if (len(hosts) != 1 and not (version == "1.0" and not hosts)) or not all(map(_HOST.fullmatch, hosts)):
            raise _malformed("the header needs one field Host with the name of the server")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            raise _malformed("HTTP/1.0 has no Transfer-Encoding")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _malformed(f"more than {MAX_PIPELINED} requests wait on the connection")
        if self._surplus and not self.url.startswith(_OPEN):
            raise ProblemError(problems.BUSY, f"there are {self._settings.max_connections} connections already")

    def _go_on(self) -> None:
        self._waits = False
        self._start_asgi_task(self.cycle, self.app)

    def _refuse(self) -> None:
        """Answers that the service is full, without the application."""
        self._waits = False
        self.cycle.response_complete = True
        # Its time isn't observed: percentiles are of work.
        self._metrics.requests.labels(self._image_route, self.parser.get_method().decode("ascii"), "503").inc()
        self._metrics.refusals.labels(self._image_route).inc()
        close = not self.cycle.keep_alive
        head, body = _refusal(OIP_PREFIX if self.url.startswith(OIP_PREFIX.encode()) else "", close)
        id_field = f"{current_request.ID_HEADER}: {current_request.request_id(self.headers)}\r\n\r\n"
        self.transport.write(head + id_field.encode() + body)
        if close:
            self._ended = True
            self.transport.close()

    def _end(self, error: ProblemError) -> None:
        """Answers ``error`` in its turn and closes the connection. Nothing more is read from it."""
        self._ended = True
        self._waits = False
        self._metrics.requests.labels("none", "other", str(error.problem.status)).inc()
        broken = False
        if self._has_cycle and self.pipeline:
            self.pipeline.popleft()  # the request at fault
        elif self._has_cycle:
            broken = self.cycle.response_started
            self._abandon()
            self.cycle = None  # type: ignore[assignment]
        if broken or self.transport.is_closing():
            self.transport.close()
            return
        response = problem_response(error, "")
        response.headers["connection"] = "close"
        add_security_headers(response.headers, response.status_code)

        async def answer(*asgi: Any) -> None:
            with suppress(asyncio.CancelledError):  # the client left before it read the answers
                await response(*asgi)

        self.app = answer
        super().on_message_begin()
        self.url = b"/"
        super().on_headers_complete()


def _malformed(detail: str) -> ProblemError:
    return ProblemError(problems.MALFORMED_REQUEST, detail)


@lru_cache
def _refusal(prefix: str, close: bool) -> tuple[bytes, bytes]:
    """Returns the 503 for paths with ``prefix``: the status line and fields, and the body."""
    response = problem_response(ProblemError(problems.OVERLOADED, FULL), prefix)
    add_security_headers(response.headers, response.status_code)
    if close:
        response.headers["connection"] = "close"
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + lines, bytes(response.body)


def check_connections(connections: Iterable[Connection], max_unread_bytes: int) -> None:
    """Ends the connections of slow clients; above the memory limit also those that wait the longest. Call it often."""
    unread = {one: size + STREAM_BYTES for one in tuple(connections) if (size := one.check())}
    total = sum(unread.values())
    for one in sorted(unread, key=lambda one: one.unread_since):
        if total <= max_unread_bytes:
            break
        total -= unread[one]
        one.disconnect("unread answers")
