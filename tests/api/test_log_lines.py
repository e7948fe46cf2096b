"""The log's two formats."""

import json
import logging
import sys
import time

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from api.telemetry import observation
from api.telemetry.logs import MAX_PER_MINUTE, JsonFormatter, LimitRepeats, TextFormatter
from api.telemetry.observation import Observation


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("api.here", logging.WARNING, "here.py", 1, message, args, None)
    if fields:
        made.fields = fields
    return made


def test_an_object_has_the_message_its_fields_and_its_request() -> None:
    span = NonRecordingSpan(SpanContext(int("f" * 32, 16), 1, is_remote=False))
    token = observation.current.set(Observation("me"))
    try:
        with trace.use_span(span):
            line = json.loads(JsonFormatter().format(record("%s\nmore", "one", status=200, odd=object)))
    finally:
        observation.current.reset(token)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "api.here", "one\nmore")
    assert (line["request_id"], line["trace_id"], line["status"]) == ("me", "f" * 32, 200)


def test_an_object_is_one_line_with_its_exception_in_it() -> None:
    made = record("it failed")
    try:
        raise ValueError("on purpose")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = JsonFormatter().format(made)
    assert "\n" not in text
    assert "ValueError: on purpose" in json.loads(text)["exception"]
    assert "request_id" not in json.loads(text)


def test_a_line_without_a_request_has_no_brackets() -> None:
    assert TextFormatter().format(record("hello")) == "WARNING api.here: hello"


def passing(limit: LimitRepeats, count: int, level: int = logging.WARNING, line: int = 1, kind: str = "") -> list[str]:
    """Logs the same so many times, and returns the lines that pass."""
    lines = []
    for _ in range(count):
        made = logging.LogRecord("api.here", level, "here.py", line, "oh", (), None)
        made.kind = kind
        if limit.filter(made):
            lines.append(TextFormatter().format(made))
    return lines


def test_so_many_warnings_of_a_kind_pass_a_minute_and_the_last_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = LimitRepeats()
    monkeypatch.setattr(time, "monotonic", lambda: 59.0)
    *lines, last = passing(limit, MAX_PER_MINUTE + 7)
    assert lines == ["WARNING api.here: oh"] * (MAX_PER_MINUTE - 1)
    assert last == "WARNING api.here: oh (more like it are left out for up to a minute)"
    assert passing(limit, 1) == []
    monkeypatch.setattr(time, "monotonic", lambda: 60.0)
    assert passing(limit, 1) == ["WARNING api.here: oh"]


def test_a_flood_of_one_kind_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    limit = LimitRepeats()
    assert len(passing(limit, 100)) == MAX_PER_MINUTE
    assert len(passing(limit, 1, line=2)) == 1
    assert len(passing(limit, 1, kind="other")) == 1
    assert len(passing(limit, 100, level=logging.INFO)) == 100
    failed = record("oh")
    failed.exc_info = (ValueError, ValueError(), None)
    assert limit.filter(failed)


def test_a_note_is_a_field_of_an_objects() -> None:
    made = record("oh")
    assert "note" not in json.loads(JsonFormatter().format(made))
    made.note = "more"
    assert json.loads(JsonFormatter().format(made))["note"] == "more"
