"""Under several times the load that the service can take, every request is answered: with its digits, or with 503."""

import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.support.processes import digitgan_up, resident_bytes
from tests.support.slow_clients import request

MIXES = {"single digits": (1,), "1, 16 and 256 digits": (1, 16, 256)}
"""Of each size there are as many images."""
CLIENTS = 256
"""There is room for 64 requests for one digit."""
SECONDS = 20.0
MOST_GROWTH_MB = 100.0


def resident_mb(pid: int) -> float:
    """Returns the resident megabytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(resident_bytes, (pid, *map(int, children)))) / 1e6


def statuses(port: int, sizes: tuple[int, ...], seed: int) -> Counter[int]:
    """Sends requests without a pause on a connection, for SECONDS. Returns how many had each status."""
    chance = random.Random(seed)
    weights = [1 / size for size in sizes]
    found = Counter[int]()
    end = time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        while time.monotonic() < end:
            (size,) = chance.choices(sizes, weights)
            first = chance.randrange(2**40)
            connection.sendall(request("/generate", f'{{"seeds": {list(range(first, first + size))}}}'.encode()))
            with HTTPResponse(connection) as answer:
                answer.begin()
                answer.read()
            found[answer.status] += 1
    return found


@pytest.mark.parametrize("mix", MIXES)
def test_every_request_is_answered_under_overload(mix: str) -> None:
    with digitgan_up() as (server, http), ThreadPoolExecutor(CLIENTS) as pool:
        memory = []
        for _ in range(2):  # the first time warms the service up
            clients = [pool.submit(statuses, http.base_url.port or 0, MIXES[mix], seed) for seed in range(CLIENTS)]
            found = sum((client.result() for client in clients), Counter[int]())
            assert found.keys() == {200, 503}
            memory.append(resident_mb(server.process.pid))
        print(mix, found)
        assert memory[1] - memory[0] < MOST_GROWTH_MB
