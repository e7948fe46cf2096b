"""Request ids and the log: every request has an id, and every line that it causes carries it."""

import json
import logging
import re
import sys
import time
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from api.telemetry import observation
from api.telemetry.logs import MAX_PER_MINUTE, JsonFormatter, LimitRepeats, TextFormatter
from api.telemetry.observation import Observation
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer, failing
from tests.api.processes import GatewayClient
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until


@pytest.mark.parametrize("given", ["a", "5f2c-11", "Root=1-67891233-abcdef012345678912345678", "x" * 128])
def test_a_valid_request_id_comes_back(http: GatewayClient, given: str) -> None:
    for path in ("/healthz/live", "/digits/7.png", "/nowhere"):
        assert http.get(path, headers={"X-Request-ID": given}).headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [None, "", "x" * 129, 'a"b', "a b", "a\tb", "é"])
def test_any_other_is_replaced(http: GatewayClient, given: str | None) -> None:
    headers = {} if given is None else {b"X-Request-ID": given.encode("latin-1")}
    found = {http.get("/healthz/live", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(found) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)


def log_of(process: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines()]


def test_json_logs_have_an_object_a_line_and_one_line_a_request(faulty_server: MisbehavingServer) -> None:
    with processes.serving(faulty_server.target, log_format="json", access_log=True) as http:
        made = http.get("/digits/7.png?scale=2", headers={"X-Request-ID": "made", "User-Agent": "me"})
        http.get("/nowhere%0aGET%20/forged", headers={"X-Request-ID": "lost"})
        faulty_server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
        http.get("/digits/7.png", headers={"X-Request-ID": "failed"})
        assert http.process.stop() == 0
        lines = log_of(http.process)
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert {"uvicorn.error", "api.access", "api.http.errors"} == {line["logger"] for line in lines}
    requests = {line["request_id"]: line for line in lines if line["logger"] == "api.access"}
    assert set(requests) - {"made", "lost", "failed"} == set()
    line = requests["made"]
    assert (line["client"], line["method"], line["target"]) == ("127.0.0.1", "GET", "/digits/7.png?scale=2")
    assert (line["route"], line["status"], line["bytes"]) == ("/digits/{seed}.png", 200, len(made.content))
    assert (line["versions"], line["user_agent"]) == ({"generator": 1}, "me")
    assert 0 < line["model_seconds"] < line["seconds"]
    assert (requests["lost"]["status"], requests["lost"]["route"]) == (404, "none")
    assert requests["lost"]["target"] == "/nowhere%0aGET%20/forged"
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert (warning["logger"], warning["request_id"]) == ("api.http.errors", "failed")
    assert "oops" in warning["message"]


def test_text_logs_have_the_id_in_brackets_and_no_requests_by_default(
    faulty_server: MisbehavingServer,
    faulty_http: GatewayClient,
) -> None:
    faulty_server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
    faulty_http.get("/digits/7.png", headers={"X-Request-ID": "a-request-of-mine"})
    wait_until(lambda: "a-request-of-mine" in faulty_http.process.log)
    (line,) = [line for line in faulty_http.process.log.splitlines() if "a-request-of-mine" in line]
    assert line.startswith("WARNING api.http.errors: GET /digits/7.png: ")
    assert line.endswith(" [a-request-of-mine]")


def test_clients_cannot_fill_a_disk_with_what_is_no_request(faulty_server: MisbehavingServer) -> None:
    """Nor with connections beyond the most there may be, nor with upgrades to what isn't spoken here."""
    upgrade = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    malformed, more = b"hello\r\n\r\n", 300
    with processes.serving(faulty_server.target, max_connections=1) as http:

        def ask(request: bytes) -> bytes:
            with http.connect() as connection:
                connection.sendall(request)
                return connection.recv(2**16)

        for _ in range(more):
            assert ask(malformed).startswith(b"HTTP/1.1 400 ")
            assert ask(upgrade).startswith(b"HTTP/1.1 200 ")
        with http.connect():
            for _ in range(more):
                assert ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        metrics = http.metrics()
        assert http.process.stop() == 0
    warnings = [line for line in http.process.log.splitlines() if line.startswith("WARNING")]
    assert {line.count("left out") for line in warnings} <= {0, 1}
    assert len(warnings) <= 8 * MAX_PER_MINUTE
    for status, count in (("400", more), ("503", more)):
        labels = (("method", "other"), ("route", "none"), ("status", status))
        assert metrics["digitgan_http_requests_total", labels] == count


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
    limit = LimitRepeats(MAX_PER_MINUTE)
    monkeypatch.setattr(time, "monotonic", lambda: 59.0)
    *lines, last = passing(limit, MAX_PER_MINUTE + 7)
    assert lines == ["WARNING api.here: oh"] * (MAX_PER_MINUTE - 1)
    assert last == "WARNING api.here: oh (more like it are left out for up to a minute)"
    assert passing(limit, 1) == []
    monkeypatch.setattr(time, "monotonic", lambda: 60.0)
    assert passing(limit, 1) == ["WARNING api.here: oh"]


def test_a_flood_of_one_kind_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    limit = LimitRepeats(MAX_PER_MINUTE)
    assert len(passing(limit, 100)) == MAX_PER_MINUTE
    assert len(passing(limit, 1, line=2)) == 1
    assert len(passing(limit, 1, kind="other")) == 1
    assert len(passing(limit, 100, level=logging.INFO)) == 100
    failed = record("oh")
    failed.exc_info = (ValueError, ValueError(), None)
    assert limit.filter(failed)
