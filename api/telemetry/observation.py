"""Observes requests: their ids, their metrics, their lines in the log.

``current`` is the request in progress: calls of the model server add their time to it, and every line of the log
carries its id.
"""

import logging
import random
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.telemetry.metrics import Metrics

HEADER: Final = b"x-request-id"
_VALID_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
"""What can be logged, and sent on, without escapes."""

CLIENT_LEFT: Final = 499
"""In metrics and logs, the status of a request whose client left before there was one."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log: Final = logging.getLogger("api.access")


@dataclass(slots=True)
class Observation:
    """What is known so far of a request under way.

    ``model_seconds``: its waits for the model server. ``versions``: of the models that have answered it.
    """

    request_id: str
    model_seconds: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)


current: Final[ContextVar[Observation | None]] = ContextVar("observation", default=None)


def note_call(model: str, version: int | None, seconds: float) -> None:
    """Notes a call of the model server for the request that made it. ``version``: the one that answered, if any."""
    if under_way := current.get():
        under_way.model_seconds += seconds
        if version is not None:
            under_way.versions[model] = version
            trace.get_current_span().set_attribute(f"digitgan.version.{model}", version)


class ObserveRequests:
    """ASGI middleware: gives every HTTP request its id, counts and times it, and logs it if ``access_log``."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        observation = Observation(request_id(scope["headers"]))
        id_header = (HEADER, observation.request_id.encode())
        status = CLIENT_LEFT  # unless an answer begins
        sent_bytes = 0

        async def noted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), id_header]}
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        current.set(observation)
        trace.get_current_span().set_attribute("digitgan.request_id", observation.request_id)
        self._metrics.in_flight.inc()
        start = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.observe_request(route, method, status, seconds, observation.model_seconds)
            if self._access_log:
                _log_request(scope, route, status, sent_bytes, seconds, observation)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the caller's id of the request where it is a valid one, and a new one otherwise."""
    given = next((value for name, value in headers if name == HEADER), b"")
    if _VALID_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"  # a name and no secret: refusals need thousands a second


def _log_request(
    scope: Scope, route: str, status: int, sent_bytes: int, seconds: float, observation: Observation
) -> None:
    # As it came, percent-encoded: a decoded path could begin a new line.
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    fields = {
        "client": (scope.get("client") or ("",))[0],
        "method": scope["method"],
        "target": target.decode("ascii", "backslashreplace"),
        "route": route,
        "status": status,
        "bytes": sent_bytes,
        "seconds": round(seconds, 6),
        "model_seconds": round(observation.model_seconds, 6),
        "versions": observation.versions,
        "user_agent": dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1"),
    }
    _log.info(
        '%(client)s "%(method)s %(target)s" %(status)s, %(bytes)s bytes in %(seconds)s s, model %(model_seconds)s s',
        fields,
        extra={"fields": fields},
    )
