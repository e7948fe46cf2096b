"""Request ids and the log: every request has an id, and every line that it causes carries it."""

import json
import re

import grpc
import pytest

from api.telemetry.logs import MAX_PER_MINUTE
from tests.support.gateways import GatewayClient, faulty_gateway
from tests.support.misbehaving import failing
from tests.support.processes import wait_until


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


def test_json_logs_have_an_object_a_line_and_one_line_a_request() -> None:
    with faulty_gateway(log_format="json", access_log=True) as http:
        made = http.get("/digits/7.png?scale=2", headers={"X-Request-ID": "made", "User-Agent": "me"})
        http.get("/nowhere%0aGET%20/forged", headers={"X-Request-ID": "lost"})
        http.server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
        http.get("/digits/7.png", headers={"X-Request-ID": "failed"})
        assert http.process.stop() == 0
        lines = [json.loads(line) for line in http.process.log.splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert {"uvicorn.error", "api.access", "api.http.errors"} == {line["logger"] for line in lines}
    requests = {line["request_id"]: line for line in lines if line["logger"] == "api.access"}
    assert set(requests) == {"made", "lost", "failed"}
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


def test_text_logs_have_the_id_in_brackets_and_a_kind_of_warning_twenty_times_a_minute() -> None:
    with faulty_gateway() as http:
        http.server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
        for place in range(3 * MAX_PER_MINUTE):
            http.get("/digits/7.png", headers={"X-Request-ID": f"number-{place}"})
        http.server.behaviour = failing(grpc.StatusCode.UNKNOWN, "oops")
        http.get("/digits/7.png", headers={"X-Request-ID": "other-kind"})
        wait_until(lambda: "other-kind" in http.process.log)
        lines = [line for line in http.process.log.splitlines() if line.startswith("WARNING")]
    assert all(line.startswith("WARNING api.http.errors: GET /digits/7.png: ") for line in lines)
    assert lines[0].endswith(" [number-0]")
    assert lines[-1].endswith(" [other-kind]")
    assert len(lines) <= 2 * MAX_PER_MINUTE + 1, "a new minute may begin meanwhile"
    assert 1 <= sum("more like it are left out for up to a minute" in line for line in lines) <= 2
    assert not any('"GET' in line for line in http.process.log.splitlines()), "there is no access log by default"


def test_clients_cannot_fill_a_disk_with_what_is_no_request() -> None:
    """Nor with connections beyond the most there may be, nor with upgrades to another protocol."""
    upgrade = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    count = 100
    with faulty_gateway(max_connections=1) as http:
        for _ in range(count):
            assert http.exchange(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            assert http.exchange(upgrade).startswith(b"HTTP/1.1 200 ")
        with http.connect():
            for _ in range(count):
                assert http.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        metrics = http.metrics()
        assert http.process.stop() == 0
    assert len([line for line in http.process.log.splitlines() if line.startswith("WARNING")]) <= MAX_PER_MINUTE
    for status in ("400", "503"):
        labels = (("method", "other"), ("route", "none"), ("status", status))
        assert metrics["digitgan_http_requests_total", labels] == count
