"""Slow clients cost little, are cut off when they are many, and delay no other client: on bare sockets.

``tests/slow/test_slow_clients.py`` does the same with a thousand.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.middleware.connections import STREAM_BYTES, allow_connections
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer
from tests.api.problem import assert_problem
from tests.support.processes import ServerProcess
from tests.support.slow_clients import SLOW, hanging, port_of, request
from tests.support.waiting import wait_until

SEND_TIMEOUT_S = 1.0
MOST_CONNECTIONS = 60
MOST_WAITING_BYTES = 16 * 2**20
DEADLINE_S = 60.0

UNREAD = [name for name in SLOW if name.startswith("unread")]


@pytest.fixture(scope="module")
def gateway(faulty_server: MisbehavingServer) -> Iterator[ServerProcess]:
    """A gateway with tight bounds; nothing is cut off for its time alone."""
    bounds = {"max_connections": MOST_CONNECTIONS, "max_waiting_bytes": MOST_WAITING_BYTES, "send_timeout_s": 3600}
    with processes.gateway(faulty_server.target, **bounds) as process:
        yield process


@pytest.fixture(scope="module")
def hasty_gateway(faulty_server: MisbehavingServer) -> Iterator[ServerProcess]:
    """A gateway that waits a second for a client to take its answer."""
    with processes.gateway(faulty_server.target, send_timeout_s=SEND_TIMEOUT_S) as process:
        yield process


def metric(process: ServerProcess, name: str, **labels: str) -> float:
    with processes.GatewayClient(process) as http:
        return http.metric(name, **labels)


@pytest.mark.parametrize("name", UNREAD)
def test_an_unread_answer_is_not_kept(hasty_gateway: ServerProcess, name: str) -> None:
    def cut_off() -> float:
        return metric(hasty_gateway, "http_cut_off_total", why="unread answers")

    before = cut_off()
    with hanging(port_of(hasty_gateway), SLOW[name], 3):
        wait_until(lambda: cut_off() - before == 3)
        wait_until(lambda: metric(hasty_gateway, "http_requests_in_flight") == 1)  # which asks


def test_an_answer_that_is_taken_slowly_arrives(hasty_gateway: ServerProcess) -> None:
    """In twice the timeout and more, but always enough of it."""
    with hanging(port_of(hasty_gateway), SLOW[UNREAD[0]], 1) as (connection,):
        received = bytearray()
        for enough in range(2**15, 25 * 2**15, 2**15):
            while len(received) < enough:
                received += connection.recv(2**16)
            time.sleep(SEND_TIMEOUT_S / 10)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        assert found
        left = int(found[1]) - len(body)
        assert left > 0, "it was slow"
        while left:
            piece = connection.recv(2**16)
            assert piece, "it broke off"
            left -= len(piece)


@pytest.mark.parametrize("name", UNREAD)
def test_of_many_unread_answers_few_are_kept(gateway: ServerProcess, name: str) -> None:
    before = gateway.resident_bytes()
    with hanging(port_of(gateway), SLOW[name], MOST_CONNECTIONS - 5):
        most = MOST_WAITING_BYTES // STREAM_BYTES
        wait_until(lambda: metric(gateway, "http_requests_in_flight") <= most + 1)
        assert httpx.get(f"{processes.url_of(gateway)}/digits/7.png").status_code == 200
    assert gateway.resident_bytes() - before < 100e6
    wait_until(lambda: metric(gateway, "http_connections") <= 2)


def test_an_idle_connection_closes_after_its_time(faulty_server: MisbehavingServer) -> None:
    with (
        processes.serving(faulty_server.target, keep_alive_s=1) as http,
        http.connect() as connection,
    ):
        connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        while connection.recv(2**16):
            pass


def test_unfinished_large_bodies_delay_large_bodies_only(gateway: ServerProcess) -> None:
    """There is memory for two. One more waits until a client leaves."""
    opening = request("/generate", b'{"seeds": [' + b"7," * 2**20, length=8 * 2**20 - 1)
    url = f"{processes.url_of(gateway)}/generate"
    large = b" " * 2**20 + b'{"seeds": [7]}'
    with ThreadPoolExecutor() as pool, hanging(port_of(gateway), opening, 2) as connections:
        wait_until(lambda: metric(gateway, "http_requests_in_flight") == 3)
        headers = {"Content-Type": "application/json"}
        waiting = pool.submit(httpx.post, url, content=large, headers=headers, timeout=DEADLINE_S)
        wait_until(lambda: metric(gateway, "http_requests_in_flight") == 4)
        assert httpx.post(url, json={"seeds": [7]}).status_code == 200
        assert not waiting.done()
        connections[0].close()
        assert waiting.result().status_code == 200
    wait_until(lambda: metric(gateway, "http_connections") <= 2)


def test_a_connection_too_many_is_told_so_and_probes_are_answered(gateway: ServerProcess) -> None:
    url = processes.url_of(gateway)
    with hanging(port_of(gateway), b"GET /", MOST_CONNECTIONS):
        wait_until(lambda: metric(gateway, "http_connections") >= MOST_CONNECTIONS)
        refused = httpx.get(f"{url}/digits/7.png")
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["type"] == "/problems/busy"
        assert httpx.get(f"{url}/healthz/ready").status_code == 200
    wait_until(lambda: metric(gateway, "http_connections") <= 2)
    assert httpx.get(f"{url}/digits/7.png").status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request("/generate", b"", length=80 * 2**20), 413),
        (request("/generate", b"", length=100), 400),
    ],
    ids=["an honest length", "a false length"],
)
def test_a_body_of_ten_times_the_limit_is_not_kept(gateway: ServerProcess, head: bytes, status: int) -> None:
    """Without a length: see test_wrong_input."""
    before = gateway.resident_bytes()
    with hanging(port_of(gateway), head, 1) as (connection,):
        sent = 0
        try:
            while sent < 80 * 2**20:
                sent += connection.send(b"7," * 2**15)
        except OSError:
            pass
        with_answer = b""
        try:
            with_answer = connection.recv(2**16)
        except ConnectionResetError:
            assert status == 400, "it closes at what is no request, unread bytes or not"
        assert not with_answer or int(with_answer.split(b" ", 2)[1]) == status
    assert gateway.resident_bytes() - before < 20e6
    assert_problem(httpx.post(f"{processes.url_of(gateway)}/generate", json=json.loads("7")), "invalid-request", "")


def test_as_many_connections_as_there_may_be_files() -> None:
    """In a process of its own: a limit once lowered stays."""
    lines = (
        "import resource",
        "from api.middleware.connections import allow_connections",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))",
        "print(allow_connections(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0], allow_connections(2048))",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["500", "884", "616"]
    assert allow_connections(1) == 1
