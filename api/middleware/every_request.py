"""What every request gets: an id, a count, a time, a line in the log, and header fields that limit what browsers do."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.current_request import ID_HEADER, CurrentRequest, current, request_id
from api.telemetry.metrics import Metrics

NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The Content-Security-Policy of answers other than pages: images, JSON, problem documents."""
PAGE: Final = f"{NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
"""That of pages: scripts, styles and images come from the gateway's own files, and nothing is inline."""

ALWAYS: Final[Sequence[tuple[str, str]]] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

CLIENT_LEFT: Final = 499  # the status, in metrics and logs, where the client cancels before the answer begins
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log: Final = logging.getLogger("api.access")


class EveryRequest:
    """The outermost ASGI middleware, so that no answer misses it. Logs requests if ``access_log``.

    It answers HEAD wherever GET is answered (RFC 9110, section 9.1): the server leaves the content out.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        request = CurrentRequest(request_id(scope["headers"]))
        status = CLIENT_LEFT  # unless an answer begins
        sent_bytes = 0

        async def noted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[ID_HEADER] = request.request_id
                add_security_headers(headers, status)
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        current.set(request)
        trace.get_current_span().set_attribute("digitgan.request_id", request.request_id)
        metrics = self._metrics
        metrics.in_flight.inc()
        start = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            pass  # its client has disconnected
        finally:
            seconds = time.perf_counter() - start
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(route, method, status).inc()
            metrics.request_seconds.labels(route).observe(seconds)
            # Calls overlap the gateway's own work in large answers, so the difference can be negative.
            metrics.gateway_seconds.labels(route).observe(max(0.0, seconds - request.model_seconds))
            if self._access_log:
                _log_request(request, scope, route, status, sent_bytes, seconds)


def add_security_headers(headers: MutableHeaders, status: int) -> None:
    """Adds the fields that an answer with ``headers`` hasn't set itself."""
    for name, value in ALWAYS:
        headers.setdefault(name, value)
    # The fields of a 304 replace those of the stored answer (RFC 9111, 3.2), and it has no type.
    if status != 304:
        is_page = headers.get("content-type", "").startswith("text/html")
        headers.setdefault("Content-Security-Policy", PAGE if is_page else NOTHING)


def _log_request(request: CurrentRequest, scope: Scope, route: str, status: int, sent: int, seconds: float) -> None:
    # As it came, percent-encoded: a decoded path could begin a new line.
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    fields = {
        "client": (scope.get("client") or ("",))[0],
        "method": scope["method"],
        "target": target.decode("ascii", "backslashreplace"),
        "route": route,
        "status": status,
        "bytes": sent,
        "seconds": round(seconds, 6),
        "model_seconds": round(request.model_seconds, 6),
        "versions": request.versions,
        "user_agent": dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1"),
    }
    _log.info(
        '%(client)s "%(method)s %(target)s" %(status)s, %(bytes)s bytes in %(seconds)s s, model %(model_seconds)s s',
        fields,
        extra={"fields": fields},
    )
