"""The log, on stderr: a line of text or a JSON object for each event, with the id of the request that caused it.

Clients can cause warnings and errors as fast as they can send. So that nobody fills a disk, or hides one event behind a
million others, there are only so many of a kind a minute, and a note of how many more there were.
"""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

import orjson
from opentelemetry import trace

from api import observation

Format = Literal["text", "json"]

MOST_OF_A_KIND: Final = 20
"""Lines in PERIOD_S."""

PERIOD_S: Final = 60.0


class TextFormatter(logging.Formatter):
    """For people: level, logger, message, a note in parentheses if there is one, and the request's id in brackets."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s%(aside)s%(request)s")

    def format(self, record: logging.LogRecord) -> str:
        under_way = observation.current.get()
        note = getattr(record, "note", "")
        record.aside = f" ({note})" if note else ""
        record.request = f" [{under_way.request_id}]" if under_way else ""
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """For programs: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``; where there is a request its
    ``request_id`` and ``trace_id``; where there is an exception its traceback in ``exception``; where lines are left
    out a ``note``; and what the event has in ``extra={"fields": …}``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if under_way := observation.current.get():
            line["request_id"] = under_way.request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if note := getattr(record, "note", ""):
            line["note"] = note
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


@dataclass
class _Period:
    """The lines of a kind since a moment, in the time of ``time.monotonic``."""

    since: float
    lines: int = 0

    @property
    def left_out(self) -> int:
        return max(0, self.lines - MOST_OF_A_KIND)


class BoundedKinds(logging.Filter):
    """Lets MOST_OF_A_KIND warnings and errors of each kind pass in PERIOD_S, and says in a ``note`` what it leaves out.

    A kind is a place in the code; the type of the exception and the place where it was raised, if there is one; and
    what the event has in ``extra={"kind": …}``, of which there must be few.
    """

    def __init__(self) -> None:
        super().__init__()
        self._periods: dict[tuple[object, ...], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        kind = _kind(record)
        period = self._periods.get(kind)
        if period is None or now - period.since >= PERIOD_S:
            if period and period.left_out:
                record.note = f"{period.left_out} more like it were left out"
            period = self._periods[kind] = _Period(now)
        period.lines += 1
        if period.lines == MOST_OF_A_KIND:
            record.note = f"more like it are left out for {period.since + PERIOD_S - now:.0f} s"
        return not period.left_out


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    error, _, traceback = record.exc_info or (None, None, None)
    return record.pathname, record.lineno, error, _raised_at(traceback), getattr(record, "kind", None)


def _raised_at(traceback: TracebackType | None) -> tuple[str, int] | None:
    if traceback is None:
        return None
    while traceback.tb_next:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


_FORMATTERS: Final[dict[Format, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(level: str, log_format: Format) -> None:
    """Sends what this process logs, from ``level`` on and within bounds, to stderr in ``log_format``."""
    handler = logging.StreamHandler()
    handler.addFilter(BoundedKinds())
    handler.setFormatter(_FORMATTERS[log_format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
