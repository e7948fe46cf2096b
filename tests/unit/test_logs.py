"""The log's two formats."""

import json
import logging
import sys
import time
from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from api import logs, observation
from api.logs import MOST_OF_A_KIND, BoundedKinds, JsonFormatter, TextFormatter
from api.observation import Observation


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


def passing(bound: BoundedKinds, count: int, level: int = logging.WARNING, line: int = 1, kind: str = "") -> list[str]:
    """Logs the same so many times, and returns the lines that pass."""
    lines = []
    for _ in range(count):
        made = logging.LogRecord("api.here", level, "here.py", line, "oh", (), None)
        made.kind = kind
        if bound.filter(made):
            lines.append(TextFormatter().format(made))
    return lines


def test_only_so_many_warnings_of_a_kind_pass_and_then_a_note_tells_how_many_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = BoundedKinds()
    *lines, last = passing(bound, MOST_OF_A_KIND + 7)
    assert lines == ["WARNING api.here: oh"] * (MOST_OF_A_KIND - 1)
    assert last == "WARNING api.here: oh (more like it are left out for 60 s)"
    assert passing(bound, 1) == []
    monkeypatch.setattr(logs, "PERIOD_S", 0.01)
    time.sleep(0.02)
    assert passing(bound, 1) == ["WARNING api.here: oh (8 more like it were left out)"]
    time.sleep(0.02)
    assert passing(bound, 1) == ["WARNING api.here: oh"]


def test_a_flood_of_one_kind_hides_no_other() -> None:
    bound = BoundedKinds()
    assert len(passing(bound, 100)) == MOST_OF_A_KIND
    assert len(passing(bound, 1, line=2)) == 1
    assert len(passing(bound, 1, kind="other")) == 1
    assert len(passing(bound, 100, level=logging.INFO)) == 100


def test_exceptions_are_a_kind_by_their_type_and_the_place_where_they_were_raised() -> None:
    def raised_here(what: Exception) -> None:
        raise what

    def raised_there(what: Exception) -> None:
        raise what

    def passes(fail: Callable[[Exception], None], error: Exception) -> bool:
        made = record("it failed")
        try:
            fail(error)
        except Exception:
            made.exc_info = sys.exc_info()
        return bound.filter(made)

    bound = BoundedKinds()
    assert [passes(raised_here, ValueError(number)) for number in range(100)].count(True) == MOST_OF_A_KIND
    assert passes(raised_here, TypeError())
    assert passes(raised_there, ValueError())


def test_a_note_is_a_field_of_an_objects() -> None:
    made = record("oh")
    assert "note" not in json.loads(JsonFormatter().format(made))
    made.note = "more"
    assert json.loads(JsonFormatter().format(made))["note"] == "more"
