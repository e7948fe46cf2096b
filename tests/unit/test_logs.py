"""The log's two formats."""

import json
import logging
import sys

from api import observation
from api.logs import JsonFormatter, TextFormatter
from api.observation import Observation


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("api.here", logging.WARNING, "here.py", 1, message, args, None)
    if fields:
        made.fields = fields
    return made


def test_an_object_has_the_message_its_fields_and_its_request() -> None:
    token = observation.current.set(Observation("me", trace_id="f" * 32))
    try:
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
