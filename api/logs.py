"""The log, on stderr: a line of text or a JSON object for each event, with the id of the request that caused it."""

import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from api import observation

Format = Literal["text", "json"]


class TextFormatter(logging.Formatter):
    """For people: level, logger, message, and the request's id in brackets."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s%(request)s")

    def format(self, record: logging.LogRecord) -> str:
        under_way = observation.current.get()
        record.request = f" [{under_way.request_id}]" if under_way else ""
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """For programs: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``; where there is a request its
    ``request_id`` and ``trace_id``; where there is an exception its traceback in ``exception``; and what the event
    has in ``extra={"fields": …}``.
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
            if under_way.trace_id:
                line["trace_id"] = under_way.trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


_FORMATTERS: Final[dict[Format, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(level: str, log_format: Format) -> None:
    """Sends everything that this process logs, from ``level`` on, to stderr in ``log_format``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[log_format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
