"""The log, on stderr: a line of text or a JSON object for each event, with the id of the request that caused it."""

import logging
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from opentelemetry import trace

from api.http.current_request import current

MAX_PER_MINUTE: Final = 20  # warnings and errors of a kind: clients can cause any number of them


class TextFormatter(logging.Formatter):
    """For people: the request's id, as ``request``, is in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        under_way = current.get(None)
        record.request = f" [{under_way.request_id}]" if under_way else ""
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """For programs: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, and where there are any
    ``request_id``, ``trace_id``, ``exception`` (a traceback) and the event's ``extra={"fields": …}``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if under_way := current.get(None):
            line["request_id"] = under_way.request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class LimitRepeats(logging.Filter):
    """Lets ``most`` warnings and errors of each kind pass a minute. The last line that passes says so.

    A kind is a place in the code, the type of the exception, and ``extra={"kind": …}`` of the event.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._minute = 0
        self._counts: Counter[tuple[object, ...]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, Counter()
        error = record.exc_info[0] if record.exc_info else None
        kind = record.pathname, record.lineno, error, getattr(record, "kind", None)
        self._counts[kind] += 1
        if self._counts[kind] == self._most:
            record.msg = f"{record.msg} (more like it are left out for up to a minute)"
        return self._counts[kind] <= self._most


def configure(level: str, log_format: Literal["text", "json"]) -> None:
    """Sends what this process logs, from ``level`` on, to stderr in ``log_format``."""
    handler = logging.StreamHandler()
    handler.addFilter(LimitRepeats(MAX_PER_MINUTE))
    text = TextFormatter("%(levelname)s %(name)s: %(message)s%(request)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
