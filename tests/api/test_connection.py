"""Connections, on bare sockets: malformed, endless, slow and many, pipelining and upgrades.

``tests/slow/test_load.py`` has a thousand slow clients.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPResponse

import pytest

from api.middleware.connection import MAX_HEADER_BYTES, MAX_PIPELINED
from tests.conftest import faulty_gateway_fixture
from tests.support.commands import python
from tests.support.gateways import SLOW, GatewayClient, assert_problem, faulty_gateway, hanging, json_request
from tests.support.processes import wait_until

LIVE = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
DIGIT = b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

SEND_TIMEOUT_S = 3.0
MOST_CONNECTIONS = 60
UNREAD = [name for name in SLOW if name.startswith("unread")]

impatient = faulty_gateway_fixture(header_timeout_s=1, body_timeout_s=1)
hasty = faulty_gateway_fixture(send_timeout_s=SEND_TIMEOUT_S)
http = faulty_gateway_fixture(max_connections=MOST_CONNECTIONS, max_waiting_bytes=16 * 2**20, send_timeout_s=3600)


@pytest.fixture(autouse=True)
def _no_client_stays(http: GatewayClient) -> Iterator[None]:
    yield
    wait_until(lambda: http.metric("http_connections") <= 2)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def assert_closing_problem(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    fields = head.lower()
    assert b"content-type: application/problem+json" in fields
    assert b"x-content-type-options: nosniff" in fields
    assert b"connection: close" in fields
    assert json.loads(body).items() >= {"type": f"/problems/{slug}", "status": status}.items()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /healthz/live\r\n\r\n",
        b"GET /healthz/live HTTP/0.9\r\n\r\n",
        b"GET /healthz/live HTTP/1.1\r\n\r\n",
        b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /healthz/live HTTP/1.1\r\nHost: x/y\r\n\r\n",
        b"GET /healthz/live HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
        b"POST /generate HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /generate HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request_gets_a_problem_document(impatient: GatewayClient, request_bytes: bytes) -> None:
    assert_closing_problem(impatient.exchange(request_bytes), 400, "malformed-request")


def test_a_malformed_request_leaves_nothing_in_memory(impatient: GatewayClient) -> None:
    for times in (100, 500):  # the first ones fill what is kept for later ones
        before = impatient.process.resident_bytes()
        for _ in range(times):
            assert statuses(impatient.exchange(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n")) == [400]
    assert impatient.process.resident_bytes() - before < 3e6, "kept, the connections take 7 MB"


@pytest.mark.parametrize(
    "field", [b"X: " + b"x" * 2 * MAX_HEADER_BYTES + b"\r\n", b"X: y\r\n" * 101], ids=["large", "many"]
)
def test_a_large_header_is_refused(faulty: GatewayClient, field: bytes) -> None:
    answer = faulty.exchange(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
    assert_closing_problem(answer, 431, "header-too-large")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nX: ", b"x" * 2**14, id="a header"),
        pytest.param(CHUNKED + b"0\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 500, id="trailers"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"y" * 2**14, id="a trailer"),
        pytest.param(CHUNKED + b"5;", b"y" * 2**14, id="a chunk's extension"),
        pytest.param(CHUNKED, b"0" * 2**14, id="a chunk's size"),
    ],
)
def test_what_has_no_end_is_not_kept(impatient: GatewayClient, start: bytes, piece: bytes) -> None:
    before = impatient.process.resident_bytes()
    sent = 0
    with impatient.connect() as connection, contextlib.suppress(OSError):
        connection.sendall(start)
        while sent < 50 * 2**20:
            sent += connection.send(piece)
    assert sent < 20 * 2**20, "what the sockets' buffers hold, and no more"
    assert impatient.process.resident_bytes() - before < 20e6


def test_requests_are_not_kept_if_their_answers_are_not_read(impatient: GatewayClient) -> None:
    before = impatient.process.resident_bytes()
    with impatient.connect() as connection, contextlib.suppress(OSError):
        for _ in range(500):
            connection.sendall(LIVE * 1000)
    assert impatient.process.resident_bytes() - before < 30e6, "kept, they take 700 MB"


def test_trailers_within_bounds_are_taken_and_http_1_0_needs_no_host(impatient: GatewayClient) -> None:
    for request in (CHUNKED + b'c;x=y\r\n{"count": 1}\r\n0\r\nX: y\r\n\r\n', b"GET /healthz/live HTTP/1.0\r\n\r\n"):
        with impatient.connect() as connection:
            connection.sendall(request)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200")


def test_too_many_pipelined_requests_end_the_connection_without_a_traceback(impatient: GatewayClient) -> None:
    """The answer that is on its way when they are refused has nowhere to go any more."""
    one = POST + b'Content-Length: 13\r\n\r\n{"seeds":[7]}'
    before = impatient.process.log.count("Traceback")
    for _ in range(5):
        impatient.exchange(one * 2 * MAX_PIPELINED)
    assert impatient.get("/digits/7.png").status_code == 200
    assert impatient.process.log.count("Traceback") == before


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET /healthz/live HTTP/1.1\r\nHost: "])
def test_the_gateway_does_not_wait_for_a_slow_header(impatient: GatewayClient, start: bytes) -> None:
    """Nor for one that goes on arriving, a byte at a time."""
    received = bytearray()
    with impatient.connect() as connection:
        connection.sendall(start)
        connection.settimeout(0.1)

        def is_closed() -> bool:
            try:
                with contextlib.suppress(TimeoutError):
                    piece = connection.recv(2**16)
                    received.extend(piece)
                    return not piece
                connection.sendall(start[-1:])
            except OSError:
                return True
            return False

        wait_until(is_closed)
    if start.startswith(b"GET"):
        assert_closing_problem(bytes(received), 408, "request-timeout")


def test_the_gateway_does_not_wait_for_a_slow_body(impatient: GatewayClient) -> None:
    assert_closing_problem(impatient.exchange(POST + b'Content-Length: 20\r\n\r\n{"count"'), 408, "request-timeout")


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize("pieces", [1, 40])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_a_request_to_upgrade_is_answered(faulty: GatewayClient, upgrade: bytes, chunked: bool, pieces: int) -> None:
    """Its body is never taken for a request, even if it looks like one."""
    stream = b""
    framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n%b"
    for body in (b'{"seeds":[7]}', LIVE):
        stream += POST + upgrade + framing % (len(body), body)
    stream += LAST.replace(b"Connection: close", b"Connection: close, Upgrade\r\nUpgrade: h2c")
    step = -(-len(stream) // pieces)
    answers = faulty.exchange(*(stream[start : start + step] for start in range(0, len(stream), step)))
    assert statuses(answers) == [200, 400, 200]


BAD_CHUNK = CHUNKED + b"nonsense"


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", LIVE.replace(b"Host: x\r\n", b""), BAD_CHUNK])
@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_malformed_request_has_its_turn(faulty: GatewayClient, pieces: int, before: int, bad: bytes) -> None:
    stream = DIGIT * before + bad + DIGIT
    cut = -8 - len(DIGIT)
    answers = faulty.exchange(stream) if pieces == 1 else faulty.exchange(stream[:cut], stream[cut:])
    assert statuses(answers) == [200] * before + [400]


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
