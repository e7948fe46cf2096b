"""Work whose client has left ends, at the model server too."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.middleware.admission import MIN_CHARGE_IMAGES
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer
from tests.api.test_metrics import read, value
from tests.api.waiting import wait_until
from tests.support.processes import ServerProcess


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="module")
def process(server: MisbehavingServer) -> Iterator[ServerProcess]:
    with processes.gateway(server.target, request_timeout_s=60) as process:
        yield process


@pytest.fixture(scope="module")
def http(process: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=processes.url_of(process), timeout=60) as client:
        yield client


def asking(process: ServerProcess, path: str, body: Any, accept: str = "*/*") -> socket.socket:
    """Returns a connection on which a request waits for its answer."""
    connection = socket.create_connection(("127.0.0.1", int(processes.url_of(process).rpartition(":")[2])), timeout=60)
    content = json.dumps(body).encode()
    fields = f"Host: x\r\nAccept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    connection.sendall(f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + content)
    return connection


def assert_nothing_runs(http: httpx.Client) -> None:
    def quiet() -> bool:
        samples = read(http)
        names = ("digitgan_model_calls_in_flight", "digitgan_images_in_flight")
        return not any(number for (name, _), number in samples.items() if name in names)

    wait_until(quiet)


NOISE_INPUT = {"inputs": [{"name": "noise", "shape": [1, 100], "datatype": "FP32", "data": [0.0] * 100}]}


@pytest.mark.parametrize(
    ("path", "body", "accept"),
    [
        ("/generate", {"seeds": [1]}, "application/json"),
        ("/generate", {"seeds": [1, 2]}, "image/png"),
        ("/generate", {"count": 1024}, "application/json"),
        ("/generate", {"count": 1024}, "application/x-npy"),
        ("/generate", {"count": 1024}, "application/zip"),
        ("/dataset", {"count": 10}, "application/zip"),
        ("/interpolate", {"seeds": [1, 2], "steps": 300}, "image/gif"),
        ("/v2/models/generator/infer", NOISE_INPUT, "*/*"),
    ],
)
def test_a_call_is_cancelled_when_its_client_leaves(
    process: ServerProcess, http: httpx.Client, holding: Holding, path: str, body: Any, accept: str
) -> None:
    with asking(process, path, body, accept):
        wait_until(lambda: holding.held == 1)
    wait_until(lambda: (holding.held, holding.cancelled) == (0, 1))
    assert_nothing_runs(http)
    assert "Traceback" not in process.log


def test_one_that_waits_for_its_turn_leaves_the_queue_and_takes_nobody_along(
    process: ServerProcess, http: httpx.Client, server: MisbehavingServer, holding: Holding
) -> None:
    connections = [asking(process, "/generate", {"seeds": [seed]}) for seed in range(5)]
    wait_until(lambda: holding.held == 2)
    wait_until(lambda: value(read(http), "digitgan_images_in_flight", size="small") == 5 * MIN_CHARGE_IMAGES)
    calls = server.calls
    for connection in connections[3:]:
        connection.close()
    wait_until(lambda: value(read(http), "digitgan_images_in_flight", size="small") == 3 * MIN_CHARGE_IMAGES)
    holding.release()
    for connection in connections[:3]:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    assert server.calls == calls + 1
    assert holding.cancelled == 0


def test_those_who_left_are_counted_as_such(process: ServerProcess, http: httpx.Client, holding: Holding) -> None:
    labels = {"route": "/generate", "method": "POST", "status": "499"}
    before = value(read(http), "digitgan_http_requests_total", **labels)
    with asking(process, "/generate", {"seeds": [1]}):
        wait_until(lambda: holding.held == 1)
    wait_until(lambda: value(read(http), "digitgan_http_requests_total", **labels) == before + 1)


def test_a_large_request_makes_no_further_calls(
    process: ServerProcess, http: httpx.Client, server: MisbehavingServer, holding: Holding
) -> None:
    calls = server.calls
    with asking(process, "/generate", {"count": 4096}):
        wait_until(lambda: holding.held == 1)
    wait_until(lambda: holding.cancelled == 1)
    holding.release()
    assert_nothing_runs(http)
    assert http.get("/digits/1.png").status_code == 200
    assert server.calls == calls + 2
