"""Hostile clients at random for a minute: afterwards no gauge is stuck, and the service is open."""

import contextlib
import hashlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.gateways import GatewayClient
from tests.support.repeating import repeating
from tests.support.slow_clients import request
from tests.support.waiting import wait_until

SECONDS: Final = 60.0
CLIENTS: Final = 24
MAX_IMAGES: Final = 128
KEY: Final = "a key for the tests"

BODIES: Final = (
    b'{"seeds": [7]}',
    b'{"count": 64}',
    b'{"count": 4096}',
    b'{"count": 1024, "scale": 4}',
    b'{"count": 0}',
    b"not JSON",
    b'{"seeds": [' + b"7, " * 40_000 + b"7]}",
)
PATHS: Final = (
    "/generate",
    "/generate",
    "/interpolate",
    "/dataset",
    "/score",
    "/v2/models/generator/infer",
    "/nowhere",
)
FIELDS: Final = (
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Accept: application/zip",
    b"Accept: application/x-npy",
    b"Content-Type: application/pdf",
    b"Host: y",
    b"Request-Timeout: 0.05",
)


@pytest.fixture(scope="module", params=[False, True], ids=["without a log", "with an access log"])
def gateway(sockets: Path, request: pytest.FixtureRequest) -> Iterator[GatewayClient]:
    settings = {
        "max_images_in_flight": MAX_IMAGES,
        "api_keys": f"me:{hashlib.sha256(KEY.encode()).hexdigest()}",
        "key_images_per_minute": 0,
        "access_log": request.param,
        "header_timeout_s": 3,
        "body_timeout_s": 5,
        "send_timeout_s": 3,
        "max_connections": 200,
        "max_waiting_bytes": 32 * 2**20,
    }
    with (
        gateways.model_server(MODELS_DIR, sockets / f"hostile-{request.param}.sock"),
        gateways.serving(f"unix:{sockets}/hostile-{request.param}.sock", **settings) as client,
    ):
        yield client


def hostile_request(chance: random.Random) -> bytes:
    """Returns a request that may be wrong in several ways, most of them with a valid key."""
    head, _, body = request(chance.choice(PATHS), chance.choice(BODIES)).partition(b"\r\n\r\n")
    fields = chance.sample(FIELDS, chance.choice((0, 0, 1, 2)))
    if chance.random() < 0.7:
        fields.append(b"Authorization: Bearer " + KEY.encode())
    content = b"\r\n".join((head, *fields)) + b"\r\n\r\n" + body
    if chance.random() < 0.1:
        at = chance.randrange(len(content))
        content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    return content


def hostile_connection(port: int, chance: random.Random) -> None:
    """Connects, sends requests in pieces, reads some of the answers, and leaves at any time."""
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, chance.choice((4096, 2**18)))
        connection.settimeout(chance.choice((0.01, 0.3, 2.0)))
        connection.connect(("127.0.0.1", port))
        for _ in range(chance.randrange(1, 6)):
            content = hostile_request(chance) * chance.choice((1, 1, 1, 3, 120))
            cut = chance.choice((len(content), chance.randrange(len(content))))
            connection.sendall(content[:cut])
            if chance.random() < 0.5:
                time.sleep(chance.random() * chance.choice((0.05, 1.0)))
            if chance.random() < 0.8:
                connection.sendall(content[cut:])
            if chance.random() < 0.6:
                connection.recv(chance.choice((10, 2**16)))


def test_hostile_clients_leave_the_service_open(gateway: GatewayClient) -> None:
    seeds = itertools.count()
    with repeating(lambda: hostile_connection(gateway.base_url.port or 0, random.Random(next(seeds))), CLIENTS):
        time.sleep(SECONDS)
    wait_until(lambda: gateway.in_flight() == 0)
    for body in ({"seeds": [7]}, {"count": 1000}):
        answer = gateway.post("/generate", json=body, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200, answer.text
    assert "Traceback" not in gateway.process.log
