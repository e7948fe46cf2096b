"""A thousand slow clients, and bodies of ten times the limit, cost little memory and disturb no other client.

Each kind of client has a gateway of its own, in front of the real model server. Another client sends one request after
the other; its times are printed.
"""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.repeating import repeating
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
    with gateways.serving(target) as http:

        def digit() -> tuple[int, float]:
            """Requests a digit. Returns the status, 0 without an answer, and the seconds that it took."""
            time.sleep(0.01)
            begun, status = time.perf_counter(), 0
            with contextlib.suppress(httpx.HTTPError):
                status = http.get("/digits/7.png").status_code
            return status, time.perf_counter() - begun

        with repeating(digit) as answers:
            time.sleep(SETTLE_S)
            memory, settled = http.process.resident_bytes(), len(answers)
            with hanging(port_of(http.process), SLOW[name], CONNECTIONS):
                time.sleep(WORK_S)  # a burst of a thousand connections is overload: some requests may get 503
                connected = len(answers)
                time.sleep(HANG_S)
                grown = http.process.resident_bytes() - memory
                hung = len(answers)
        print(f"{name}: +{grown / 1e6:.0f} MB; ms p50, p99, max")
        times = [seconds for _, seconds in answers]
        for when, some in (
            ("before", times[:settled]),
            ("while they connect", times[settled:connected]),
            ("while they hang", times[connected:hung]),
        ):
            print(f"  {when:20} {in_ms(some)}   ({len(some)} requests)")
        assert {status for status, _ in answers[connected:hung]} == {200}
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
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connection.recv, 2**16)
        with contextlib.suppress(OSError):  # the gateway has heard enough
            connection.sendall(head)
            for _ in range(10 * BODY_LIMIT // len(piece)):
                if answer.done():
                    break
                connection.sendall(piece)
        return int(answer.result().split(b" ", 2)[1])
