"""Slow clients cost little, are disconnected when they are many, and delay no other client: on bare sockets.

``tests/slow/test_load.py`` does the same with a thousand.
"""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPResponse

import pytest

from tests.conftest import faulty_gateway_fixture
from tests.support.commands import python
from tests.support.gateways import SLOW, GatewayClient, assert_problem, faulty_gateway, hanging, json_request
from tests.support.processes import wait_until

SEND_TIMEOUT_S = 3.0
MOST_CONNECTIONS = 60
UNREAD = [name for name in SLOW if name.startswith("unread")]


http = faulty_gateway_fixture(max_connections=MOST_CONNECTIONS, max_waiting_bytes=16 * 2**20, send_timeout_s=3600)
hasty = faulty_gateway_fixture(send_timeout_s=SEND_TIMEOUT_S)


@pytest.fixture(autouse=True)
def _no_client_stays(http: GatewayClient) -> Iterator[None]:
    yield
    wait_until(lambda: http.metric("http_connections") <= 2)


@pytest.mark.parametrize("name", UNREAD)
def test_an_unread_answer_is_not_kept(hasty: GatewayClient, name: str) -> None:
    grown = hasty.growth()
    with hanging(hasty, SLOW[name], 3):
        wait_until(lambda: grown("http_cut_off_total", why="unread answers") == 3)
        wait_until(lambda: hasty.metric("http_requests_in_flight") == 1)  # this one


def test_an_answer_that_is_read_slowly_arrives(hasty: GatewayClient) -> None:
    """In twice the timeout and more, but always enough of it."""
    with hanging(hasty, SLOW[UNREAD[0]], 1) as (connection,), HTTPResponse(connection) as answer:
        answer.begin()
        for _ in range(24):
            assert len(answer.read(2**15)) == 2**15
            time.sleep(SEND_TIMEOUT_S / 10)
        assert answer.read(), "the last of it came after that"


def test_an_idle_connection_closes_after_its_time() -> None:
    with faulty_gateway(keep_alive_s=1) as client:
        assert client.exchange(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_unfinished_large_bodies_delay_large_bodies_only(http: GatewayClient) -> None:
    """There is memory for two. One more waits until a client leaves."""
    opening = json_request("/generate", b'{"seeds": [' + b"7," * 2**20, length=8 * 2**20 - 1)
    post = partial(http.post, "/generate", headers={"Content-Type": "application/json"})
    with ThreadPoolExecutor() as pool, hanging(http, opening, 2) as connections:
        wait_until(lambda: http.metric("http_requests_in_flight") == 3)
        waiting = pool.submit(post, content=b" " * 2**20 + b'{"seeds": [7]}')
        wait_until(lambda: http.metric("http_requests_in_flight") == 4)
        assert post(content=b'{"seeds": [7]}').status_code == 200
        assert not waiting.done()
        connections[0].close()
        assert waiting.result().status_code == 200


def test_beyond_the_most_connections_only_probes_are_answered(http: GatewayClient) -> None:
    with hanging(http, b"GET /", MOST_CONNECTIONS), GatewayClient(http.process) as surplus:
        wait_until(lambda: http.metric("http_connections") >= MOST_CONNECTIONS)
        refused = surplus.get("/digits/7.png")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"] == "/problems/busy"
        assert surplus.get("/healthz/ready").status_code == 200
    assert http.get("/digits/7.png").status_code == 200


@pytest.mark.parametrize(("length", "status"), [(80 * 2**20, 413), (100, 400)], ids=["honest", "false"])
def test_a_body_of_ten_times_the_limit_is_not_kept(http: GatewayClient, length: int, status: int) -> None:
    """With an honest length and with a false one. Without a length: see test_wrong_input."""
    before = http.process.resident_bytes()
    with hanging(http, json_request("/generate", b"", length=length), 1) as (connection,):
        with contextlib.suppress(OSError):
            for _ in range(80 * 2**4):
                connection.sendall(b"7," * 2**15)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # closed while some of the request was unread
            answer = connection.recv(2**16)
        assert not answer or int(answer.split(b" ", 2)[1]) == status
    assert http.process.resident_bytes() - before < 20e6
    assert_problem(http.post("/generate", json=7), "invalid-request", "")


def test_as_many_connections_as_there_may_be_files() -> None:
    """In a process of its own: a limit once lowered stays."""
    code = (
        "import resource\n"
        "from api.main import allow_connections\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))\n"
        "print(allow_connections(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0], allow_connections(2048))\n"
    )
    assert python(code).stdout.split() == ["500", "884", "616"]
