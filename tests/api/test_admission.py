"""Admission control: 503 beyond the limit of images in progress, whatever other clients do."""

import asyncio
import json
import random
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import grpc
import httpx
import numpy as np
import pytest

from api.app import create_app
from api.http.deadlines import HEADER
from api.middleware.admission import LARGEST_SMALL, MIN_CHARGE_IMAGES, AdmissionControl, image_route
from api.middleware.keys import hash_of, new_key
from api.settings import load_settings
from api.telemetry.metrics import Metrics
from serving.apis import PredictRequest
from serving.contract import IMAGES, NOISE
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer, honest
from tests.api.misbehaving import answer as predicted
from tests.api.problem import assert_problem
from tests.api.processes import GatewayClient, noise_input
from tests.support.slow_clients import answer
from tests.support.slow_clients import request as json_request
from tests.support.waiting import wait_until

MOST_IMAGES = 32
ROOM = MOST_IMAGES // MIN_CHARGE_IMAGES
"""Requests for one digit that find room."""

PNG = {"Content-Type": "image/png"}
BIG = json_request("/generate", b'{"count": 1024}')
ONE = json_request("/generate", b'{"seeds": [7]}')


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[GatewayClient]:
    with processes.serving(server.target, max_images_in_flight=MOST_IMAGES, request_timeout_s=60) as client:
        yield client


@pytest.fixture(scope="module")
def logged(server: MisbehavingServer) -> Iterator[GatewayClient]:
    """A client of a gateway with an access log: the application makes all of its answers."""
    settings = {"max_images_in_flight": MOST_IMAGES, "request_timeout_s": 60, "send_timeout_s": 3600}
    with processes.serving(server.target, access_log=True, **settings) as client:
        yield client


@pytest.fixture(scope="module")
def image(http: GatewayClient) -> bytes:
    return http.get("/digits/1.png").content


@pytest.fixture(autouse=True)
def _nothing_stays_counted(server: MisbehavingServer, http: GatewayClient) -> Iterator[None]:
    yield
    server.behaviour = honest
    wait_until(lambda: in_flight(http, "small") == in_flight(http, "large") == 0)


def in_flight(http: GatewayClient, size: str = "small") -> float:
    return http.metric("images_in_flight", size=size)


@contextmanager
def held(server: MisbehavingServer) -> Iterator[tuple[Holding, ThreadPoolExecutor]]:
    """A model server that keeps every call while the block runs, and threads to ask in."""
    holding = server.behaviour = Holding()
    with ThreadPoolExecutor(64) as pool:
        try:
            yield holding, pool
        finally:
            holding.release()


@contextmanager
def full(server: MisbehavingServer, http: GatewayClient) -> Iterator[list[Future[httpx.Response]]]:
    """As many requests for one digit as find room, unanswered while the block runs; then all get their digits."""
    with held(server) as (_, pool):
        asked = [pool.submit(http.get, f"/digits/{seed}.png") for seed in range(ROOM)]
        wait_until(lambda: in_flight(http, "small") == MOST_IMAGES)
        yield asked
        assert not any(one.done() for one in asked)
    assert [one.result().status_code for one in asked] == [200] * ROOM


def test_beyond_the_bound_every_route_that_makes_images_answers_503(
    server: MisbehavingServer, http: GatewayClient, image: bytes
) -> None:
    with full(server, http):
        calls = server.calls
        grown = http.growth()
        answers = [
            *(
                http.post("/generate", json={"seeds": [1]}, headers={"Accept": accept})
                for accept in ("application/json", "image/png", "application/zip", "application/x-npy")
            ),
            http.post("/generate", content=iter([b'{"seeds":', b"[1]}"]), headers={"Content-Type": "application/json"}),
            http.get("/digits/1.png"),
            http.post("/interpolate", json={"seeds": [1, 2]}),
            http.post("/score", content=image, headers=PNG),
            http.post("/v2/models/generator/infer", json=noise_input()),
            http.post("/v2/models/generator/versions/1/infer", json=noise_input()),
        ]
        for response in answers:
            assert_problem(response, "overloaded")
            assert response.headers["retry-after"] == "1"
            assert response.headers["x-content-type-options"] == "nosniff"
        assert http.head("/digits/1.png").status_code == 503
        assert server.calls == calls
        assert grown("requests_refused_total", route="/generate") == 5
        assert grown("http_requests_total", route="/generate", method="POST", status="503") == 5


def test_what_makes_no_images_is_never_refused(server: MisbehavingServer, http: GatewayClient) -> None:
    with full(server, http):
        paths = ["/", "/docs", "/openapi.json", "/healthz/live", "/healthz/ready", "/metrics", "/models"]
        paths += ["/v2", "/v2/health/ready", "/v2/models/generator", "/problems/overloaded"]
        assert {path: http.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
        assert http.get("/nowhere").status_code == 404
        assert http.get("/generate").status_code == 405


def test_every_route_that_makes_images_is_refused_early_too() -> None:
    """These are the routes that take ``Request-Timeout``."""
    described = {
        (path, method.upper())
        for path, item in create_app(load_settings()).openapi()["paths"].items()
        for method, operation in item.items()
        if HEADER in [one["name"] for one in operation.get("parameters", ())]
    }
    for path, method in described:
        assert image_route(method, path.format(seed=7, model="generator", version=1)) == path
    assert image_route("GET", "/models") is None


def test_the_bound_is_on_images_and_not_on_requests(server: MisbehavingServer, http: GatewayClient) -> None:
    with held(server) as (_, pool):
        asked = [pool.submit(http.post, "/generate", json={"seeds": list(range(MOST_IMAGES - MIN_CHARGE_IMAGES))})]
        wait_until(lambda: in_flight(http, "small") == MOST_IMAGES - MIN_CHARGE_IMAGES)
        asked.append(pool.submit(http.get, "/digits/1.png"))
        wait_until(lambda: in_flight(http, "small") == MOST_IMAGES)
        assert_problem(http.get("/digits/2.png"), "overloaded")
    assert [one.result().status_code for one in asked] == [200, 200]


def test_large_requests_and_small_ones_keep_each_other_out_of_nothing(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    with held(server) as (_, pool):
        large = pool.submit(http.post, "/generate", json={"count": 300})
        wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL)
        assert_problem(http.post("/generate", json={"count": 300}), "overloaded")
        small = pool.submit(http.get, "/digits/1.png")
        wait_until(lambda: in_flight(http, "small") == MIN_CHARGE_IMAGES)
    assert large.result().status_code == small.result().status_code == 200


@pytest.mark.parametrize("accept", ["application/json", "application/x-npy"])
def test_an_idle_service_takes_a_request_of_any_size(http: GatewayClient, accept: str) -> None:
    assert http.post("/generate", json={"count": 4096}, headers={"Accept": accept}).status_code == 200


def test_a_refusal_comes_before_the_body_and_leaves_the_connection_usable(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    with ThreadPoolExecutor() as pool, http.connect() as connection:
        with full(server, http):
            pool.submit(http.post, "/generate", json={"count": 300})
            wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL)
            connection.sendall(head)
            first, body = answer(connection)
            assert first.startswith(b"http/1.1 503 ")
            assert json.loads(body)["type"] == "/problems/overloaded"
            connection.sendall(b" " * 100_000 + b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(connection)[0].startswith(b"http/1.1 200 ")
        connection.sendall(b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0].startswith(b"http/1.1 200 ")


def post(seed: int, *fields: bytes) -> bytes:
    """A request for one digit."""
    body = b'{"seeds":[%d]}' % seed
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head + b"".join(field + b"\r\n" for field in fields) + b"Content-Length: %d\r\n\r\n" % len(body) + body


CHUNKED = b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n     \r\n0\r\n\r\n"
ALIKE = (
    *(post(seed) for seed in (1, 2, 30)),
    post(3, b"X-Request-ID: mine"),
    b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/models/generator/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    CHUNKED,
)


def test_requests_that_begin_alike_are_refused_one_by_one_wherever_they_are_cut(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    """Whole, several at once, or in pieces: each gets one answer, with its own id or its caller's."""
    chosen = random.Random(0)
    requests = [chosen.choice(ALIKE) for _ in range(150)]
    ends = [sum(map(len, requests[: count + 1])) for count in range(len(requests))]
    cuts = sorted({*chosen.sample(ends, 100), *chosen.sample(range(1, ends[-1]), 25), ends[-1]})
    stream = b"".join(requests)
    with full(server, http), http.connect() as connection, connection.makefile("rb") as answers:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ids = []
        sent = answered = 0
        for cut in cuts:
            connection.sendall(stream[sent:cut])
            sent = cut
            while answered < len(ends) and ends[answered] <= sent:
                fields = dict(
                    line.split(b": ", 1) for line in iter(lambda: answers.readline()[:-2], b"") if b": " in line
                )
                assert json.loads(answers.read(int(fields[b"content-length"])))["type"] == "/problems/overloaded"
                ids.append(fields[b"x-request-id"])
                answered += 1
    own = [number for number, request in enumerate(requests) if b"mine" in request]
    assert own
    assert {ids[number] for number in own} == {b"mine"}
    assert len(set(ids)) == len(requests) - len(own) + 1


def test_a_client_that_waits_for_100_continue_is_refused_and_disconnected(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    head = b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    with full(server, http), http.connect() as connection:
        connection.sendall(head)
        first, _ = answer(connection)
        assert first.startswith(b"http/1.1 503 ")
        assert b"connection: close" in first
        assert connection.recv(1) == b""


def test_a_body_on_its_way_takes_no_room(server: MisbehavingServer, http: GatewayClient) -> None:
    """Otherwise a few slow clients would block all others."""
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
    connections = [http.connect() for _ in range(2 * ROOM)]
    for connection in connections:
        connection.sendall(head + b'{"see')
    wait_until(lambda: http.metric("http_requests_in_flight") > 2 * ROOM)
    assert in_flight(http, "small") == 0
    assert http.get("/digits/1.png").status_code == 200
    for connection in connections:
        connection.sendall(b'ds":[7]}')
        assert answer(connection)[0].startswith(b"http/1.1 200 ")
        connection.close()


def test_a_stream_whose_client_reads_slowly_keeps_no_large_request_out(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    def waits_for_its_client() -> bool:
        calls = server.calls
        return not threading.Event().wait(0.2) and calls == server.calls and in_flight(http, "large") == 0

    body = {"count": 100_000, "scale": 4}
    with http.stream("POST", "/generate", json=body, headers={"Accept": "application/x-npy"}):
        wait_until(waits_for_its_client)
        assert http.post("/generate", json={"count": 300}).status_code == 200


def test_unread_streams_block_no_small_request(http: GatewayClient) -> None:
    body = {"count": 8, "scale": 32}
    with ExitStack() as streams:
        for _ in range(ROOM):
            stream = http.stream("POST", "/generate", json=body, headers={"Accept": "application/x-npy"})
            assert streams.enter_context(stream).status_code == 200
        assert http.get("/digits/7.png").status_code == 200
        assert in_flight(http, "small") == 0


def test_with_an_access_log_refusals_are_logged(server: MisbehavingServer, logged: GatewayClient) -> None:
    with full(server, logged):
        response = logged.get("/digits/2.png")
        assert_problem(response, "overloaded")
    wait_until(lambda: '"GET /digits/2.png" 503' in logged.process.log)
    assert response.headers["x-request-id"] in logged.process.log


@pytest.mark.parametrize("gateway", ["http", "logged"])
def test_small_requests_do_not_block_large_ones(
    server: MisbehavingServer, request: pytest.FixtureRequest, gateway: str
) -> None:
    http: GatewayClient = request.getfixturevalue(gateway)
    with full(server, http), ExitStack() as stack:
        for body in (b'{"count": 4096}', b'{"seeds": [' + b"7, " * 299 + b"7]}"):
            assert http.get("/digits/7.png").status_code == 503
            assert http.post("/generate", json={"seeds": [7]}).status_code == 503
            large = stack.enter_context(http.connect())
            large.sendall(json_request("/generate", body))
            wait_until(lambda: in_flight(http, "large") == LARGEST_SMALL)
            large.close()
            wait_until(lambda: in_flight(http, "large") == 0)
    wait_until(lambda: in_flight(http) == 0)


def noisy(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
    """Images that PNG can't compress."""
    rows = request.inputs[NOISE].tensor_shape.dim[0].size
    return predicted(request, {IMAGES: np.random.default_rng().integers(0, 256, (rows, 28, 28, 1), np.uint8)})


@contextmanager
def unread(server: MisbehavingServer, http: GatewayClient) -> Iterator[list[socket.socket]]:
    """As many connections as fill the service. Each has an unread answer of megabytes: no other can be written."""
    server.behaviour = noisy
    with ExitStack() as stack:
        connections = []
        for _ in range(ROOM):
            grown = http.growth()
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", http.base_url.port))
            connection.sendall(BIG)
            wait_until(partial(grown, "http_requests_total", route="/generate", method="POST", status="200"))
            connections.append(connection)
        server.behaviour = honest
        yield connections


def test_a_refusal_that_is_not_read_holds_no_place(server: MisbehavingServer, logged: GatewayClient) -> None:
    """The header arrives while the service is full, the body when it has room again."""
    body = ONE.partition(b"\r\n\r\n")[2]
    with unread(server, logged) as connections:
        with full(server, logged):
            for connection in connections:
                connection.sendall(ONE[: -len(body)])
            started = ROOM + 1  # and the request for the metrics
            wait_until(lambda: logged.metric("http_requests_in_flight") == started + ROOM)
        wait_until(lambda: in_flight(logged) == 0)
        for connection in connections:
            connection.sendall(body)
        wait_until(lambda: logged.get("/digits/7.png").status_code == 200)
    wait_until(lambda: in_flight(logged) == 0)
    assert logged.post("/generate", json={"seeds": [7]}).status_code == 200


def test_an_error_that_is_not_read_holds_no_place(server: MisbehavingServer, logged: GatewayClient) -> None:
    wrong = ONE.replace(b"application/json", b"application/pdf")
    body = ONE.partition(b"\r\n\r\n")[2]
    with unread(server, logged) as connections:
        for connection in connections:
            connection.sendall(wrong[: -len(body)])
        wait_until(lambda: logged.metric("http_requests_in_flight") == ROOM + 1)
        for connection in connections:
            connection.sendall(body)
        for _ in range(3):
            assert logged.post("/generate", json={"seeds": [7]}).status_code == 200
        assert in_flight(logged) == 0


def test_requests_without_a_key_take_no_place_from_those_with_one(server: MisbehavingServer) -> None:
    """All arrive at the same moment: the gateway is stopped while they are sent."""
    key = new_key()
    settings = {
        "max_images_in_flight": MOST_IMAGES,
        "api_keys": f"me:{hash_of(key)}",
    }
    with processes.serving(server.target, **settings) as http, ExitStack() as stack:
        with_key = ONE.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        connections = [stack.enter_context(http.connect()) for _ in range(40)]
        for connection in connections:  # the gateway has accepted them all
            connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(connection)[0].split()[1] == b"200"
        http.process.process.send_signal(signal.SIGSTOP)
        try:
            for connection in connections[:-2]:
                connection.sendall(ONE)
            for connection in connections[-2:]:
                connection.sendall(with_key)
        finally:
            http.process.process.send_signal(signal.SIGCONT)
        assert [answer(connection)[0].split()[1] for connection in connections] == [b"401"] * 38 + [b"200"] * 2


@pytest.mark.parametrize("counts", [True, False], ids=["no keys", "keys"])
def test_requests_that_arrive_together_are_refused_early_beyond_the_room(counts: bool) -> None:
    """Their tasks have had no step yet, so no image of theirs counts."""

    async def burst() -> list[bool | None]:
        admission = AdmissionControl(2 * MIN_CHARGE_IMAGES, Metrics(), counts_arrivals=counts)
        found = []
        for _ in range(3):
            found.append(admission.refuses_early("/digits/{seed}.png"))
            admission.note_arrival(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return [*found, admission.refuses_early("/digits/{seed}.png")]

    assert asyncio.run(burst()) == [False, False, counts, False]
