"""Connections: malformed, endless and slow headers and bodies, pipelining and upgrades, on bare sockets."""

import contextlib
import json
import re

import pytest

from api.middleware.connection import MAX_HEADER_BYTES, MAX_PIPELINED
from tests.conftest import faulty_gateway_fixture
from tests.support.gateways import GatewayClient
from tests.support.processes import wait_until

LIVE = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
DIGIT = b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


impatient = faulty_gateway_fixture(header_timeout_s=1, body_timeout_s=1)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def assert_problem(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    fields = head.lower()
    assert b"content-type: application/problem+json" in fields
    assert b"x-content-type-options: nosniff" in fields
    assert b"connection: close" in fields
    assert json.loads(body)["type"] == f"/problems/{slug}"
    assert json.loads(body)["status"] == status


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
    assert_problem(impatient.exchange(request_bytes), 400, "malformed-request")


def test_a_malformed_request_leaves_nothing_in_memory(impatient: GatewayClient) -> None:
    def refuse(times: int) -> None:
        for _ in range(times):
            assert statuses(impatient.exchange(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n")) == [400]

    refuse(100)
    before = impatient.process.resident_bytes()
    refuse(500)
    assert impatient.process.resident_bytes() - before < 3e6, "kept, the connections take 7 MB"


@pytest.mark.parametrize(
    "field", [b"X: " + b"x" * 2 * MAX_HEADER_BYTES + b"\r\n", b"X: y\r\n" * 101], ids=["large", "many"]
)
def test_a_large_header_is_refused(faulty: GatewayClient, field: bytes) -> None:
    answer = faulty.exchange(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
    assert_problem(answer, 431, "header-too-large")


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
                piece = connection.recv(2**16)
                received.extend(piece)
                return not piece
            except TimeoutError:
                connection.sendall(start[-1:])
                return False
            except OSError:
                return True

        wait_until(is_closed)
    if start.startswith(b"GET"):
        assert_problem(bytes(received), 408, "request-timeout")


def test_the_gateway_does_not_wait_for_a_slow_body(impatient: GatewayClient) -> None:
    assert_problem(impatient.exchange(POST + b'Content-Length: 20\r\n\r\n{"count"'), 408, "request-timeout")


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
