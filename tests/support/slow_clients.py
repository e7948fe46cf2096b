"""Clients that begin a request or an answer, and then hang."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.support.gateways import GatewayClient

BODY_LIMIT: Final = 8 * 2**20
"""DIGITGAN_MAX_BODY_BYTES, unless it is set."""


def json_request(path: str, body: bytes, accept: str = "*/*", length: int | None = None) -> bytes:
    """Returns a request with a JSON body, whose header announces ``length`` bytes."""
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
    "bodies of 2 KB that don't end": json_request("/generate", b'{"seeds": [' + b"7," * 1000, length=BODY_LIMIT - 1),
    "bodies of 1 MB that don't end": json_request("/generate", b'{"seeds": [' + b"7," * 500_000, length=BODY_LIMIT - 1),
    "unread answers of 1.6 MB": json_request(
        "/interpolate", json.dumps({"seeds": [1, 2], "steps": 1, "scale": 32}).encode(), "application/x-npy"
    ),
    "unread streams of 6 MB": json_request(
        "/generate", json.dumps({"count": 8, "scale": 32}).encode(), "application/x-npy"
    ),
}
"""What a slow client sends before it hangs, and reads nothing."""


@contextmanager
def hanging(http: GatewayClient, opening: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Gives ``count`` connections that have sent ``opening`` and hang there, with small buffers for what comes."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.socket()
            connections.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            try:
                connection.connect(("127.0.0.1", http.base_url.port or 0))
                connection.sendall(opening)
            except OSError:
                pass  # cut off already
        yield connections
    finally:
        for connection in connections:
            connection.close()
