"""What do a thousand slow clients and bodies of ten times the limit cost, in memory and in the time of everybody else?

    python -m benchmarks.slow_clients [--connections 1000]

For each kind of client a fresh gateway, in front of the real model server. The memory is the gateway's, the latency
that of one more client, which asks for a digit after another: before, while they connect and their requests are worked
on, and while they hang there. The exit status is 1 if a bound is
broken.
"""

import argparse
import json
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from serving.pretrained import MODELS_DIR
from tests.gateway import processes
from tests.gateway.processes import ServerProcess

MOST_GROWTH_BYTES: Final = 300 * 10**6
"""Of the gateway, whatever they do: twice DIGITGAN_MAX_WAITING_BYTES, and what Python keeps for the next time."""
MOST_GROWTH_OF_BODIES_BYTES: Final = 30 * 10**6
MOST_P99_S: Final = 0.1
HANG_S: Final = 10.0
_LIMIT: Final = 8 * 2**20
WORK_S: Final = 8.0
"""For what they have asked to be made, which keeps the model busy."""
_SETTLE_S: Final = 2.0


def request(path: str, body: bytes, accept: str = "*/*", length: int | None = None) -> bytes:
    """Returns a request with a JSON body, which says that it has ``length`` bytes."""
    head = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Accept: {accept}",
        f"Content-Length: {len(body) if length is None else length}",
    )
    return "\r\n".join((*head, "\r\n")).encode() + body


SLOW: Final = {
    "headers that don't end": b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "bodies of 2 KB that don't end": request("/generate", b'{"seeds": [' + b"7," * 1000, length=_LIMIT - 1),
    "bodies of 1 MB that don't end": request("/generate", b'{"seeds": [' + b"7," * 500_000, length=_LIMIT - 1),
    "unread answers of 1.6 MB": request(
        "/interpolate", json.dumps({"seeds": [1, 2], "steps": 1, "scale": 32}).encode(), "application/x-npy"
    ),
    "unread streams of 6 MB": request("/generate", json.dumps({"count": 8, "scale": 32}).encode(), "application/x-npy"),
}
"""What a slow client sends, before it does no more and reads nothing."""


def port_of(gateway: ServerProcess) -> int:
    """Returns the port that a gateway listens on."""
    return int(processes.url_of(gateway).rpartition(":")[2])


@contextmanager
def hanging(port: int, opening: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Gives ``count`` connections that have sent ``opening`` and hang there, with small buffers for what comes."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.socket()
            connections.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            try:
                connection.connect(("127.0.0.1", port))
                connection.sendall(opening)
            except OSError:
                pass  # cut off already
        yield connections
    finally:
        for connection in connections:
            connection.close()


class OneMore:
    """Another client, which asks for a digit after another in a thread of its own. Used as a context manager."""

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


def slow(target: str, name: str, count: int) -> list[str]:
    """Measures ``count`` clients of a kind; returns the bounds that they break."""
    with processes.gateway(target) as gateway, OneMore(processes.url_of(gateway)) as other:
        time.sleep(_SETTLE_S)
        other.taken()
        time.sleep(_SETTLE_S)
        memory, before = gateway.resident_bytes(), other.taken()
        with hanging(port_of(gateway), SLOW[name], count):
            time.sleep(WORK_S)
            connecting = other.taken()
            time.sleep(HANG_S)
            during = other.taken()
            grown = gateway.resident_bytes() - memory
    print(f"{count:5} {name}: +{grown / 1e6:.0f} MB")
    for when, times in (("before", before), ("while they connect", connecting), ("while they hang", during)):
        print(f"      {when:20} ms p50, p99, max: {in_ms(times)}   ({len(times)} requests)")
    broken = [f"{name}: another client got {failure}" for failure in other.failures[:1]]
    if grown > MOST_GROWTH_BYTES:
        broken.append(f"{name}: {grown / 1e6:.0f} MB more memory; {MOST_GROWTH_BYTES / 1e6:.0f} at most")
    if np.percentile(during, 99) > MOST_P99_S:
        broken.append(f"{name}: p99 above {MOST_P99_S * 1e3:.0f} ms for others")
    return broken


def large_bodies(target: str, count: int) -> list[str]:
    """Measures bodies of ten times the limit, by their announced length, by a false one, and without; returns the
    bounds that they break.
    """
    piece = b"7," * 2**15
    chunk = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    chunked = request("/generate", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    kinds = {
        "their length announced": (request("/generate", b"", length=10 * _LIMIT), piece, 413),
        "a small length announced": (request("/generate", b"", length=100), piece, 400),
        "no length announced": (chunked, chunk, 413),
    }
    broken = []
    with processes.gateway(target) as gateway:
        with httpx.Client(base_url=processes.url_of(gateway)) as client:
            client.post("/generate", content=b"[" * (_LIMIT - 1), headers={"Content-Type": "application/json"})
        for name, (head, piece, status) in kinds.items():
            memory = gateway.resident_bytes()
            statuses = {_upload(port_of(gateway), head, piece) for _ in range(count)}
            grown = gateway.resident_bytes() - memory
            print(f"{count:5} bodies of {10 * _LIMIT / 1e6:.0f} MB, {name}: {statuses}, +{grown / 1e6:.0f} MB")
            if statuses != {status}:
                broken.append(f"{name}: {statuses} in place of {status}")
            if grown > MOST_GROWTH_OF_BODIES_BYTES:
                broken.append(f"{name}: {grown / 1e6:.0f} MB more memory")
    return broken


def _upload(port: int, head: bytes, piece: bytes) -> int:
    """Sends up to ten times the limit and returns the status of the answer, which may come earlier."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        received = bytearray()
        reading = threading.Thread(target=_read, args=(connection, received))
        reading.start()
        try:
            connection.sendall(head)
            for _ in range(10 * _LIMIT // len(piece)):
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


def main() -> int:
    """Measures, prints, and tells whether a bound was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000, help="slow clients at a time")
    parser.add_argument("--bodies", type=int, default=20, help="bodies of ten times the limit, one after another")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        path = Path(directory) / "model-server.sock"
        with processes.model_server(MODELS_DIR, path):
            broken = [fault for name in SLOW for fault in slow(f"unix:{path}", name, options.connections)]
            broken += large_bodies(f"unix:{path}", options.bodies)
    for fault in broken:
        print(f"BROKEN: {fault}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
