"""Admission control: 503 beyond the limit of images in progress, whatever other clients do."""

import json
import random
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPResponse, parse_headers

import httpx
import pytest

from api.middleware.admission import MIN_CHARGE_IMAGES
from api.middleware.keys import hash_of, new_key
from api.upstream.inference import LARGEST_SMALL_ROWS
from tests.conftest import faulty_gateway_fixture
from tests.support.gateways import FaultyClient, assert_problem, faulty_gateway, hanging, json_request, noise_input
from tests.support.misbehaving import Holding, honest, noisy
from tests.support.processes import wait_until

MOST_IMAGES = 32
ROOM = MOST_IMAGES // MIN_CHARGE_IMAGES
"""Requests for one digit that find room."""

BIG = json_request("/generate", b'{"count": 1024}')
ONE = json_request("/generate", b'{"seeds": [7]}')
BODY = ONE.partition(b"\r\n\r\n")[2]

http = faulty_gateway_fixture(max_images_in_flight=MOST_IMAGES)
# With an access log the application makes all answers.
logged = faulty_gateway_fixture(max_images_in_flight=MOST_IMAGES, send_timeout_s=3600, access_log=True)


@pytest.fixture(autouse=True)
def _nothing_stays_counted(http: FaultyClient) -> Iterator[None]:
    yield
    http.server.behaviour = honest
    wait_until(lambda: in_flight(http) == in_flight(http, "large") == 0)


def in_flight(http: FaultyClient, size: str = "small") -> float:
    return http.metric("images_in_flight", size=size)


def status_of(connection: socket.socket) -> int:
    """Reads an answer on a bare connection."""
    with HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status


@contextmanager
def held(http: FaultyClient) -> Iterator[ThreadPoolExecutor]:
    """A model server that keeps every call while the block runs, and threads to send requests in."""
    with ThreadPoolExecutor(64) as pool, Holding() as http.server.behaviour:
        yield pool


@contextmanager
def full(http: FaultyClient) -> Iterator[None]:
    """As many requests for one digit as find room, unanswered while the block runs; then all get their digits."""
    with held(http) as pool:
        asked = [pool.submit(http.get, f"/digits/{seed}.png") for seed in range(ROOM)]
        wait_until(lambda: in_flight(http) == MOST_IMAGES)
        yield
        assert not any(one.done() for one in asked)
    assert statuses(asked) == [200] * ROOM


def statuses(asked: list[Future[httpx.Response]]) -> list[int]:
    return [one.result().status_code for one in asked]


def test_beyond_the_limit_every_route_that_makes_images_answers_503(http: FaultyClient) -> None:
    chunks, json_type = [b'{"seeds":', b"[1]}"], {"Content-Type": "application/json"}
    with full(http):
        calls = http.server.calls
        grown = http.growth()
        for answer in (
            *http.on_each_image_route(),
            http.post("/generate", content=iter(chunks), headers=json_type),
            http.post("/generate", json={"seeds": [1]}, headers={"Expect": "100-continue"}),
            http.post("/v2/models/generator/versions/1/infer", json=noise_input()),
        ):
            assert_problem(answer, "overloaded")
            assert answer.headers["retry-after"] == "1"
        assert http.head("/digits/1.png").status_code == 503
        assert http.server.calls == calls
        assert grown("requests_refused_total", route="/generate") == 3
        assert grown("http_requests_total", route="/generate", method="POST", status="503") == 3
        paths = ["/", "/docs", "/openapi.json", "/healthz/live", "/healthz/ready", "/metrics", "/models"]
        paths += ["/v2", "/v2/health/ready", "/v2/models/generator", "/problems/overloaded"]
        assert {path: http.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
        assert (http.get("/nowhere").status_code, http.get("/generate").status_code) == (404, 405)


def test_small_and_large_requests_have_a_limit_each_and_it_counts_images(http: FaultyClient) -> None:
    with held(http) as pool:
        asked = [pool.submit(http.post, "/generate", json={"count": 300})]
        wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL_ROWS)
        assert_problem(http.post("/generate", json={"count": 300}), "overloaded")
        asked.append(pool.submit(http.post, "/generate", json={"seeds": list(range(MOST_IMAGES - MIN_CHARGE_IMAGES))}))
        wait_until(lambda: in_flight(http) == MOST_IMAGES - MIN_CHARGE_IMAGES)
        asked.append(pool.submit(http.get, "/digits/1.png"))
        wait_until(lambda: in_flight(http) == MOST_IMAGES)
        assert_problem(http.get("/digits/2.png"), "overloaded")
    assert statuses(asked) == [200] * 3


@pytest.mark.parametrize("gateway", ["http", "logged"])
def test_small_requests_do_not_block_large_ones(request: pytest.FixtureRequest, gateway: str) -> None:
    http: FaultyClient = request.getfixturevalue(gateway)
    with full(http), ExitStack() as stack:
        for body in (b'{"count": 4096}', b'{"seeds": [' + b"7, " * 299 + b"7]}"):
            refused = http.get("/digits/7.png")
            assert_problem(refused, "overloaded")
            if gateway == "logged":
                wait_until(lambda refused=refused: refused.headers["x-request-id"] in http.process.log)  # type: ignore[misc]
                assert '"GET /digits/7.png" 503' in http.process.log
            assert http.post("/generate", json={"seeds": [7]}).status_code == 503
            large = stack.enter_context(http.connect())
            large.sendall(json_request("/generate", body))
            wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL_ROWS)
            large.close()
            wait_until(lambda: in_flight(http, "large") == 0)
    wait_until(lambda: in_flight(http) == 0)


ALIKE = (
    *(json_request("/generate", b'{"seeds":[%d]}' % seed) for seed in (1, 2, 30)),
    ONE.replace(b"\r\n\r\n", b"\r\nX-Request-ID: mine\r\n\r\n"),
    b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/models/generator/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n     \r\n0\r\n\r\n",
)


def test_requests_are_refused_one_by_one_wherever_they_are_cut(http: FaultyClient) -> None:
    """Whole, several at once, or in pieces: each gets one answer, with its own id or its client's."""
    chosen = random.Random(0)
    requests = [chosen.choice(ALIKE) for _ in range(150)]
    ends = [sum(map(len, requests[: count + 1])) for count in range(len(requests))]
    cuts = sorted({*chosen.sample(ends, 100), *chosen.sample(range(1, ends[-1]), 25), ends[-1]})
    stream = b"".join(requests)
    with full(http), http.connect() as connection, connection.makefile("rb") as answers:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ids: list[str] = []
        sent = 0
        for cut in cuts:
            connection.sendall(stream[sent:cut])
            sent = cut
            while len(ids) < len(ends) and ends[len(ids)] <= sent:
                assert answers.readline().startswith(b"HTTP/1.1 503 ")
                fields = parse_headers(answers)
                assert json.loads(answers.read(int(fields["content-length"])))["type"] == "/problems/overloaded"
                ids.append(fields["x-request-id"])
    own = [number for number, request in enumerate(requests) if b"mine" in request]
    assert {ids[number] for number in own} == {"mine"}
    assert len(set(ids)) == len(requests) - len(own) + 1


def test_a_body_on_its_way_takes_no_room(http: FaultyClient) -> None:
    """Otherwise a few slow clients would block all others."""
    with ExitStack() as stack:
        connections = [stack.enter_context(http.connect()) for _ in range(2 * ROOM)]
        for connection in connections:
            connection.sendall(ONE[:-5])
        wait_until(lambda: http.metric("http_requests_in_flight") > 2 * ROOM)
        assert in_flight(http) == 0
        assert http.get("/digits/1.png").status_code == 200
        for connection in connections:
            connection.sendall(ONE[-5:])
            assert status_of(connection) == 200


def test_streams_whose_clients_do_not_read_block_no_request(http: FaultyClient) -> None:
    with ExitStack() as streams:
        for body in [{"count": 100_000, "scale": 4}, *[{"count": 8, "scale": 32}] * ROOM]:
            stream = http.stream("POST", "/generate", json=body, headers={"Accept": "application/x-npy"})
            assert streams.enter_context(stream).status_code == 200
        wait_until(lambda: in_flight(http) == in_flight(http, "large") == 0)  # they wait for their clients
        wait_until(lambda: http.get("/digits/7.png").status_code == 200)
        wait_until(lambda: http.post("/generate", json={"count": 300}).status_code == 200)


@pytest.mark.parametrize("media_type", [b"application/json", b"application/pdf"], ids=["503", "415"])
def test_a_failure_that_is_not_read_holds_no_place(logged: FaultyClient, media_type: bytes) -> None:
    """The header arrives while the service is full, the body when it has room again."""
    request = ONE.replace(b"application/json", media_type)
    logged.server.behaviour = noisy
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        for _ in range(ROOM):  # each has an unread answer of megabytes: no other can be written
            grown = logged.growth()
            connections += stack.enter_context(hanging(logged, BIG, 1))
            wait_until(partial(grown, "http_requests_total", route="/generate", method="POST", status="200"))
        logged.server.behaviour = honest
        with full(logged):
            for connection in connections:
                connection.sendall(request[: -len(BODY)])
            wait_until(lambda: logged.metric("http_requests_in_flight") == 2 * ROOM + 1)  # and this one
        wait_until(lambda: in_flight(logged) == 0)
        for connection in connections:
            connection.sendall(BODY)
        wait_until(lambda: logged.get("/digits/7.png").status_code == 200)
    wait_until(lambda: in_flight(logged) == 0)
    assert logged.post("/generate", json={"seeds": [7]}).status_code == 200


@contextmanager
def arriving_together(http: FaultyClient, *requests: bytes) -> Iterator[list[socket.socket]]:
    """A connection for each of ``requests``. All arrive at the same moment: the gateway is stopped while it is sent."""
    with ExitStack() as stack:
        connections = [stack.enter_context(http.connect()) for _ in requests]
        for connection in connections:  # the gateway has accepted them all
            connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status_of(connection) == 200
        http.process.process.send_signal(signal.SIGSTOP)
        try:
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request)
        finally:
            http.process.process.send_signal(signal.SIGCONT)
        yield connections


def test_large_requests_that_arrive_together_do_not_block_small_ones(http: FaultyClient) -> None:
    large = json_request("/generate", b'{"count": 300}')
    with arriving_together(http, *[large] * 2 * ROOM, ONE) as connections:
        assert status_of(connections[-1]) == 200


def test_requests_without_a_key_take_no_place_from_those_with_one() -> None:
    key = new_key()
    with_key = ONE.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    with (
        faulty_gateway(max_images_in_flight=MOST_IMAGES, api_keys=f"me:{hash_of(key)}") as http,
        arriving_together(http, *[ONE] * 38, *[with_key] * 2) as connections,
    ):
        assert [status_of(connection) for connection in connections] == [401] * 38 + [200] * 2
