"""What comes before a request is one: malformed, endless, and slow headers and bodies, on bare sockets."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from api.middleware.protocol import MAX_HEADER_BYTES, MAX_PIPELINED
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def impatient(faulty_server: MisbehavingServer) -> Iterator[ServerProcess]:
    """A gateway that waits a second for a header, and a second for a body."""
    timeouts = {"header_timeout_s": TIMEOUT_S, "body_timeout_s": TIMEOUT_S}
    with processes.gateway(faulty_server.target, **timeouts) as process:
        yield process


def connect(process: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(processes.url_of(process).rpartition(":")[2])), timeout=60)


def read(connection: socket.socket) -> bytes:
    """Everything until the gateway closes the connection."""
    received = b""
    try:
        while piece := connection.recv(2**16):
            received += piece
    except ConnectionResetError:
        pass  # it closed while some of the request was unread
    return received


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
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request_gets_a_problem_document(impatient: ServerProcess, request_bytes: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(request_bytes)
        assert_problem(read(connection), 400, "malformed-request")


@pytest.mark.parametrize(
    "field", [b"X: " + b"x" * 2 * MAX_HEADER_BYTES + b"\r\n", b"X: y\r\n" * 101], ids=["large", "many"]
)
def test_a_large_header_is_refused(impatient: ServerProcess, field: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
        assert_problem(read(connection), 431, "header-too-large")


def test_a_header_without_end_is_refused_long_before_it_is_kept(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nX: ")
        sent = 0
        try:
            while sent < 50 * 2**20:
                sent += connection.send(b"x" * 2**14)
        except OSError:
            pass
    assert sent < 20 * 2**20, "what the sockets' buffers hold, and no more"


CHUNKED = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(CHUNKED + b"0\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 500, id="trailers"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"y" * 2**14, id="a trailer"),
        pytest.param(CHUNKED + b"5;", b"y" * 2**14, id="a chunk's extension"),
        pytest.param(CHUNKED, b"0" * 2**14, id="a chunk's size"),
    ],
)
def test_what_comes_around_a_body_and_has_no_end_is_refused(
    impatient: ServerProcess, start: bytes, piece: bytes
) -> None:
    """Trailers were kept, 5 bytes for each that came; the rest kept the gateway busy for as long as a body may take."""
    before = impatient.resident_bytes()
    with connect(impatient) as connection:
        connection.sendall(start)
        sent = 0
        try:
            while sent < 50 * 2**20:
                sent += connection.send(piece)
        except OSError:
            pass
    assert sent < 20 * 2**20, "what the sockets' buffers hold, and no more"
    assert impatient.resident_bytes() - before < 20e6


def test_trailers_within_bounds_are_taken(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(CHUNKED + b'c;x=y\r\n{"count": 1}\r\n0\r\nX: y\r\n\r\n')
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")


def test_requests_without_end_on_a_connection_that_is_not_read_are_not_kept(impatient: ServerProcess) -> None:
    one = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n"
    before = impatient.resident_bytes()
    with connect(impatient) as connection, contextlib.suppress(OSError):
        for _ in range(500):
            connection.sendall(one * 1000)
    assert impatient.resident_bytes() - before < 30e6, "kept, they take 700 MB"


def test_more_requests_than_wait_on_a_connection_end_it_without_a_traceback(impatient: ServerProcess) -> None:
    """The answer that is on its way when they are refused has nowhere to go any more."""
    body = b'{"seeds":[7]}'
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    told = impatient.log.count("Traceback")
    for _ in range(5):
        with connect(impatient) as connection:
            connection.sendall((head % len(body) + body) * 2 * MAX_PIPELINED)
            read(connection)
    with connect(impatient) as connection:
        connection.sendall(head % len(body) + body)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
    assert impatient.log.count("Traceback") == told


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET /healthz/live HTTP/1.1\r\nHost: "])
def test_a_slow_header_is_not_waited_for(impatient: ServerProcess, start: bytes) -> None:
    """Nor is one that goes on arriving, a byte at a time."""
    received = bytearray()
    with connect(impatient) as connection:
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


def test_a_slow_body_is_not_waited_for(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        connection.sendall(head + b'{"count"')
        assert_problem(read(connection), 408, "request-timeout")


def test_two_requests_on_a_connection_and_two_at_once_are_answered(impatient: ServerProcess) -> None:
    one = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(impatient) as connection:
        connection.sendall(one)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
        connection.sendall(one + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read(connection).count(b"HTTP/1.1 200") == 2


LIVE = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_a_request_to_upgrade_gets_the_answer_to_the_request(
    impatient: ServerProcess, upgrade: bytes, chunked: bool, pieces: int
) -> None:
    """Its body is never taken for a request, even if it looks like one."""
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + upgrade
    stream = b""
    for body in (b'{"seeds":[7]}', LIVE):
        if chunked:
            stream += head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            stream += head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    stream += LAST.replace(b"Connection: close", b"Connection: close, Upgrade\r\nUpgrade: h2c")
    with connect(impatient) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        step = -(-len(stream) // pieces)
        for start in range(0, len(stream), step):
            connection.sendall(stream[start : start + step])
            time.sleep(0.01 if pieces > 1 else 0)
        assert statuses(read(connection)) == [200, 400, 200]


def test_http_1_0_needs_no_host(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.0\r\n\r\n")
        assert statuses(read(connection)) == [200]


BAD_CHUNK = b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", LIVE.replace(b"Host: x\r\n", b""), BAD_CHUNK])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_malformed_request_is_answered_in_its_turn(impatient: ServerProcess, before: int, bad: bytes) -> None:
    one = b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(impatient) as connection:
        connection.sendall(one * before + bad + one)
        assert statuses(read(connection)) == [200] * before + [400]


def test_an_error_in_a_body_does_not_break_the_answer_before(impatient: ServerProcess) -> None:
    one = b"GET /digits/7.png HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(impatient) as connection:
        connection.sendall(one + BAD_CHUNK.removesuffix(b"nonsense"))
        connection.sendall(b"nonsense\r\n")
        assert statuses(read(connection)) == [200, 400]
