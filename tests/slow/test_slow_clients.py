"""A thousand slow clients, and bodies of ten times the limit, cost little memory and disturb no other client.

Each kind of client has a gateway of its own, in front of the real model server. Another client sends one request after
the other; its times are printed.
"""

import resource
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.slow_clients import BODY_LIMIT, SLOW, hanging, port_of, request

CONNECTIONS: Final = 1000
BODIES: Final = 20
MOST_GROWTH_BYTES: Final = 300 * 10**6
"""Of the gateway: twice DIGITGAN_MAX_WAITING_BYTES, and what Python keeps to use again."""
MOST_GROWTH_OF_BODIES_BYTES: Final = 30 * 10**6
WORK_S: Final = 8.0
"""For what the slow clients request, which keeps the model busy."""
HANG_S: Final = 10.0
SETTLE_S: Final = 2.0
PIECE: Final = b"7," * 2**15
LARGE_BODIES: Final = {
    "their length announced": (request("/generate", b"", length=10 * BODY_LIMIT), PIECE, 413),
    "a small length announced": (request("/generate", b"", length=100), PIECE, 400),
    "no length announced": (
        request("/generate", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n",
        413,
    ),
}


class OneMore:
    """Another client, which requests one digit after the other in a thread. A context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._times: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> "OneMore":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def taken(self) -> list[float]:
        """Returns the seconds of each request since the last time."""
        times, self._times = self._times, []
        return times

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.wait(0.01):
                start = time.perf_counter()
                try:
                    answer = client.get("/digits/7.png")
                    if answer.status_code != 200:
                        self.failures.append(answer.text)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                self._times.append(time.perf_counter() - start)


def in_ms(times: Sequence[float]) -> str:
    """Returns the median, the 99th percentile and the longest."""
    p50, p99 = np.percentile(times, [50, 99]) if times else (0, 0)
    return f"{p50 * 1e3:6.1f} {p99 * 1e3:8.1f} {max(times, default=0) * 1e3:8.1f}"


@pytest.fixture(scope="module")
def target(sockets: Path) -> Iterator[str]:
    """The address of a model server, for a process that may have many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with gateways.model_server(MODELS_DIR, sockets / "slow.sock"):
        yield f"unix:{sockets}/slow.sock"


@pytest.mark.parametrize("name", SLOW)
def test_slow_clients_cost_little_memory_and_disturb_no_other_client(target: str, name: str) -> None:
    with gateways.gateway(target) as gateway, OneMore(gateway.url) as other:
        time.sleep(SETTLE_S)
        memory, before = gateway.resident_bytes(), other.taken()
        with hanging(port_of(gateway), SLOW[name], CONNECTIONS):
            time.sleep(WORK_S)  # a burst of a thousand connections is overload: some requests may get 503
            connecting = other.taken()
            other.failures.clear()
            time.sleep(HANG_S)
            during = other.taken()
            grown = gateway.resident_bytes() - memory
    print(f"{name}: +{grown / 1e6:.0f} MB")
    for when, times in (("before", before), ("while they connect", connecting), ("while they hang", during)):
        print(f"  {when:20} ms p50, p99, max: {in_ms(times)}   ({len(times)} requests)")
    assert during
    assert other.failures == []
    assert grown < MOST_GROWTH_BYTES


@pytest.mark.parametrize("kind", LARGE_BODIES)
def test_bodies_of_ten_times_the_limit_cost_little_memory(target: str, kind: str) -> None:
    head, piece, status = LARGE_BODIES[kind]
    with gateways.gateway(target) as gateway:
        with httpx.Client(base_url=gateway.url) as client:
            client.post("/generate", content=b"[" * (BODY_LIMIT - 1), headers={"Content-Type": "application/json"})
        memory = gateway.resident_bytes()
        assert {_upload(port_of(gateway), head, piece) for _ in range(BODIES)} == {status}
        assert gateway.resident_bytes() - memory < MOST_GROWTH_OF_BODIES_BYTES


def _upload(port: int, head: bytes, piece: bytes) -> int:
    """Sends up to ten times the limit and returns the status of the answer, which may come earlier."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        received = bytearray()
        reading = threading.Thread(target=_read, args=(connection, received))
        reading.start()
        try:
            connection.sendall(head)
            for _ in range(10 * BODY_LIMIT // len(piece)):
                connection.sendall(piece)
                if received:
                    break
        except OSError:
            pass  # it has heard enough
        reading.join()
    return int(received.split(b" ", 2)[1]) if received else 0


def _read(connection: socket.socket, received: bytearray) -> None:
    try:
        while not received:
            piece = connection.recv(2**16)
            received += piece
            if not piece:
                return
    except OSError:
        pass
