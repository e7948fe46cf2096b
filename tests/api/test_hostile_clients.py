"""Clients that don't read, that have no key, or that ask for thousands: none takes the service from the others."""

import hashlib
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np
import pytest

from api.middleware.admission import LARGEST_SMALL
from serving.apis import PredictRequest
from serving.contract import IMAGES, NOISE
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer, answer, honest
from tests.api.processes import GatewayClient
from tests.api.waiting import wait_until
from tests.support.slow_clients import answer as read_answer
from tests.support.slow_clients import request

MAX_IMAGES = 16
ROOM = 2
"""Requests for one digit that are admitted at a time."""
KEY = "a key for the tests"

BIG = request("/generate", b'{"count": 1024}')
ONE = request("/generate", b'{"seeds": [7]}')


@pytest.fixture
def http(server: MisbehavingServer) -> Iterator[GatewayClient]:
    """A client of a gateway with an access log: the application makes all of its answers."""
    settings = {"max_images_in_flight": MAX_IMAGES, "request_timeout_s": 60, "access_log": True, "send_timeout_s": 3600}
    with processes.serving(server.target, **settings) as client:
        yield client


def noisy(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
    """Images that PNG can't compress."""
    rows = request.inputs[NOISE].tensor_shape.dim[0].size
    return answer(request, {IMAGES: np.random.default_rng().integers(0, 256, (rows, 28, 28, 1), np.uint8)})


def status(connection: socket.socket) -> int:
    return int(read_answer(connection)[0].split()[1])


def in_flight(http: GatewayClient, size: str = "small") -> float:
    return http.metric("images_in_flight", size=size)


def answered(http: GatewayClient) -> float:
    return http.metric("http_requests_total", route="/generate", method="POST", status="200")


@contextmanager
def unread(server: MisbehavingServer, http: GatewayClient) -> Iterator[list[socket.socket]]:
    """As many connections as fill the service. Each has an unread answer of megabytes: no other can be written."""
    server.behaviour = noisy
    with ExitStack() as stack:
        connections = []
        for _ in range(ROOM):
            before = answered(http)
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", http.base_url.port))
            connection.sendall(BIG)
            wait_until(lambda before=before: answered(http) > before)  # type: ignore[misc]
            connections.append(connection)
        server.behaviour = honest
        yield connections


@contextmanager
def full(server: MisbehavingServer, http: GatewayClient) -> Iterator[None]:
    """As many requests for one digit as are admitted, without an answer while the block runs."""
    holding = server.behaviour = Holding()
    with ExitStack() as stack:
        try:
            for _ in range(ROOM):
                connection = stack.enter_context(http.connect())
                connection.sendall(ONE)
            wait_until(lambda: in_flight(http) == MAX_IMAGES)
            yield
        finally:
            holding.release()
            server.behaviour = honest


def test_a_refusal_that_is_not_read_holds_no_place(server: MisbehavingServer, http: GatewayClient) -> None:
    """The header arrives while the service is full, the body when it has room again."""
    body = ONE.partition(b"\r\n\r\n")[2]
    with unread(server, http) as connections:
        with full(server, http):
            for connection in connections:
                connection.sendall(ONE[: -len(body)])
            started = ROOM + 1  # and the request for the metrics
            wait_until(lambda: http.metric("http_requests_in_flight") == started + ROOM)
        wait_until(lambda: in_flight(http) == 0)
        for connection in connections:
            connection.sendall(body)
        wait_until(lambda: http.get("/digits/7.png").status_code == 200)
    wait_until(lambda: in_flight(http) == 0)
    assert http.post("/generate", json={"seeds": [7]}).status_code == 200


def test_an_error_that_is_not_read_holds_no_place(server: MisbehavingServer, http: GatewayClient) -> None:
    wrong = ONE.replace(b"application/json", b"application/pdf")
    body = ONE.partition(b"\r\n\r\n")[2]
    with unread(server, http) as connections:
        for connection in connections:
            connection.sendall(wrong[: -len(body)])
        wait_until(lambda: http.metric("http_requests_in_flight") == ROOM + 1)
        for connection in connections:
            connection.sendall(body)
        for _ in range(3):
            assert http.post("/generate", json={"seeds": [7]}).status_code == 200
        assert in_flight(http) == 0


def test_requests_without_a_key_take_no_place_from_those_with_one(server: MisbehavingServer) -> None:
    """All arrive at the same moment: the gateway is stopped while they are sent."""
    settings = {
        "max_images_in_flight": MAX_IMAGES,
        "api_keys": f"me:{hashlib.sha256(KEY.encode()).hexdigest()}",
    }
    with processes.serving(server.target, **settings) as http, ExitStack() as stack:
        with_key = ONE.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        connections = [stack.enter_context(http.connect()) for _ in range(40)]
        for connection in connections:  # the gateway has accepted them all
            connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
        http.process.process.send_signal(signal.SIGSTOP)
        try:
            for connection in connections[:-2]:
                connection.sendall(ONE)
            for connection in connections[-2:]:
                connection.sendall(with_key)
        finally:
            http.process.process.send_signal(signal.SIGCONT)
        assert [status(connection) for connection in connections] == [401] * 38 + [200] * 2


@pytest.mark.parametrize("access_log", [False, True])
def test_small_requests_do_not_block_large_ones(server: MisbehavingServer, access_log: bool) -> None:
    settings = {"max_images_in_flight": MAX_IMAGES, "request_timeout_s": 60, "access_log": access_log}
    with processes.serving(server.target, **settings) as http:
        with full(server, http), ExitStack() as stack:
            for body in (b'{"count": 4096}', b'{"seeds": [' + b"7, " * 299 + b"7]}"):
                assert http.get("/digits/7.png").status_code == 503
                assert http.post("/generate", json={"seeds": [7]}).status_code == 503
                large = stack.enter_context(http.connect())
                large.sendall(request("/generate", body))
                wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL)
                large.close()
                wait_until(lambda: in_flight(http, "large") == 0)
        wait_until(lambda: in_flight(http) == 0)
