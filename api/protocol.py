"""Uvicorn's HTTP/1.1, with bounds on what comes before a request is one and around its body, on connections, and on
clients that don't take their answers; and problem documents for what never becomes a request."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import observation
from api.admission import TICKET, Gate, GatedRoute, Ticket, gated_route
from api.connections import SPARE_CONNECTIONS, SlowReaders
from api.keys import OPEN
from api.problems import (
    BUSY,
    HEADER_TOO_LARGE,
    MALFORMED_REQUEST,
    OIP_PREFIX,
    REQUEST_TIMEOUT,
    ProblemError,
)
from api.refusals import Refusal, RefusedBefore, closing_answer, refusal

MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_HEADER_FIELDS: Final = 100
MAX_PIPELINED: Final = 100
"""Requests that wait on a connection for the answer before theirs; each takes 40 bytes to send and 2 KB to keep."""

_OPEN: Final = tuple(path.encode() for path in OPEN)
_SURPLUS_TIMEOUT_S: Final = 1.0


class HeaderRefusedError(Exception):
    """Ends the parsing of a request that isn't taken."""


class Protocol(HttpToolsProtocol):
    """One connection. A header has ``header_timeout_s`` to arrive, from the connection or its first byte on.

    ``most_connections``: those beyond get an answer from probes' paths only, and those far beyond none.

    While ``gate`` is full, requests that it would not let in are answered here, as soon as their header is there: in a
    tenth of the time that the application takes to say the same. Those that it lets in are counted here too, so that of
    a hundred that arrive together only as many pass as find room.
    """

    header_timeout_s = 10.0
    most_connections = 2048
    slow_readers: SlowReaders
    gate: Gate
    refused_before: RefusedBefore

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_request = self._in_header = False
        self._framing_bytes = 0
        self._complaint = ProblemError(MALFORMED_REQUEST, "not an HTTP/1.1 request")
        self._header_awaited_since: float | None = None
        self._surplus = False
        self._route: GatedRoute | None = None
        self._refused: Refusal | None = None
        self._answered: Any = None  # ``cycle``, or the one that it waits behind

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first header."""
        super().connection_made(transport)
        beyond = len(self.connections) - self.most_connections
        if beyond > 0:
            self._surplus = True
            self.header_timeout_s = min(self.header_timeout_s, _SURPLUS_TIMEOUT_S)
            self.slow_readers.metrics.cut_off.labels("connections").inc()
        if beyond > SPARE_CONNECTIONS:
            self.cut_off()
        else:
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection, and ends the work for it."""
        self.slow_readers.forget(self)
        if not self._idle:
            ticket: Ticket | None = self._answered.scope["state"].get(TICKET)
            if ticket is not None:
                ticket.depart()
            self._forget_answer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request; refuses a header, a trailer or a chunk's own line that has no end."""
        if self.gate.full and self._refuse_again(data):
            return
        began_before = self._in_request
        self._framing_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._framing_bytes > MAX_HEADER_BYTES:
            self._refuse(ProblemError(HEADER_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes"))
            return
        if self._refused and not self._in_request:
            if not began_before:
                self.refused_before.remember(data, self.headers, self._refused)
            self._refused = None
        if self._in_header or self.cycle is None or self.cycle.response_complete:
            self._await_header()

    def on_message_begin(self) -> None:
        """The first byte of a header."""
        super().on_message_begin()
        self._in_request = self._in_header = True
        self._framing_bytes, self._refused = 0, None

    def on_headers_complete(self) -> None:
        """The last one."""
        self._in_header, self._framing_bytes = False, 0
        self._header_awaited_since = None
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADER_FIELDS:
            limits = f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADER_FIELDS} fields"
            self._complaint = ProblemError(HEADER_TOO_LARGE, limits)
            raise HeaderRefusedError
        if len(self.pipeline) >= MAX_PIPELINED:
            raise HeaderRefusedError
        if self._surplus and not self.url.startswith(_OPEN):
            self._complaint = ProblemError(BUSY, f"there are {self.most_connections} connections already")
            raise HeaderRefusedError
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        self._route = gated_route(self.parser.get_method().decode("ascii"), path)
        if self._route is not None and self.gate.full and self.gate.quick and self._idle:
            self._refuse_work(self._route, path)
            return
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle

    def on_body(self, body: bytes) -> None:
        """A piece of a body: what comes around it is counted anew. What belongs to a refused request is dropped."""
        self._framing_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request: from here on it is work. It counts as the least until its body has been read."""
        self._in_request = False
        if self._refused:
            return
        super().on_message_complete()
        if self._route is not None and not self.pipeline and not self._idle:
            state: dict[str, Any] = self.cycle.scope["state"]
            ticket: Ticket = state.setdefault(TICKET, Ticket(self.gate, self._route))
            if not ticket.counts:
                ticket.enter(1)

    def on_response_complete(self) -> None:
        """The next request that waits is answered."""
        if self.pipeline:
            self._answered = self.pipeline[-1][0]
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes less than there is for it."""
        super().pause_writing()
        self.slow_readers.wait(self, self.loop.time())

    def resume_writing(self) -> None:
        """The client has taken what waited for it."""
        self.slow_readers.forget(self)
        super().resume_writing()

    def unsent_bytes(self) -> int:
        """Returns how much of its answers the system has not taken yet."""
        return self.transport.get_write_buffer_size()

    def cut_off(self) -> None:
        """Closes the connection at once, and forgets what is unsent."""
        self.transport.abort()

    def check_header(self, now: float) -> None:
        """Ends a connection on which the header is too late. Call it every second or so. ``now``: in seconds.

        A timer for each header would cost as much as refusing the request.
        """
        since = self._header_awaited_since
        if since is None or now - since < self.header_timeout_s or self.transport.is_closing():
            return
        if self._in_header:
            self._refuse(ProblemError(REQUEST_TIMEOUT, f"the header took more than {self.header_timeout_s:g} s"))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers what isn't a request, as a problem document, and closes the connection."""
        self._refuse(self._complaint)

    @property
    def _idle(self) -> bool:
        """Whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, error: ProblemError) -> None:
        self.gate.metrics.requests.labels("none", "other", str(error.problem.status)).inc()
        answering = not self._idle
        if not answering or not (self.pipeline or self.cycle.response_started):  # else nothing fits in between
            self.transport.write(closing_answer(error))
        if answering:
            self._forget_answer()
        self.transport.close()

    def _forget_answer(self) -> None:
        """What the app answers now comes too late."""
        self._answered.disconnected = True
        self._answered.message_event.set()

    def _refuse_work(self, route: GatedRoute, path: str) -> None:
        """Answers that there is no room. Whatever is still to come of the request is dropped."""
        # Who waits for 100 Continue may send the body or not: what comes next can't be told.
        close = self.expect_100_continue or not self.parser.should_keep_alive()
        self._refused = refusal(route, OIP_PREFIX if path.startswith(OIP_PREFIX) else "", close)
        self._write_refusal(self._refused, observation.request_id(self.headers))
        if close:
            self.transport.close()

    def _refuse_again(self, data: bytes) -> bool:
        """Answers that there is no room, if ``data`` is a request that begins like one that was told so."""
        if self._in_request or self._surplus or not (self._idle and self.gate.quick):
            return False
        refused = self.refused_before.find(data)
        if refused is None:
            return False
        self._unset_keepalive_if_required()
        self._header_awaited_since = self.loop.time()
        self._write_refusal(refused, observation.new_id())
        return True

    def _write_refusal(self, refused: Refusal, request_id: str) -> None:
        self.gate.metrics.observe_refusal(refused.route.path, refused.route.method)
        self.transport.write(refused.answer(request_id))

    def _await_header(self) -> None:
        if self._header_awaited_since is None:
            self._header_awaited_since = self.loop.time()


def protocol(header_timeout_s: float, most_connections: int, slow_readers: SlowReaders, gate: Gate) -> type[Protocol]:
    """Returns the protocol with these bounds, in front of this gate."""
    bounds = {
        "header_timeout_s": header_timeout_s,
        "most_connections": most_connections,
        "slow_readers": slow_readers,
        "gate": gate,
        "refused_before": RefusedBefore(),
    }
    return type("Protocol", (Protocol,), bounds)
