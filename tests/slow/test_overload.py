"""Under four times the load that the service can take, every request is answered: with its digits, or with 503.

``pytest -s`` shows the images a second and the times.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.load import Load, Request, generate
from tests.support.processes import digitgan_up, resident_bytes

MIXES = {"single digits": (1,), "1, 16 and 256 digits": (1, 16, 256)}
"""Of each size there are as many images."""
CLIENTS = 64
SECONDS = 20.0
MOST_GROWTH_MB = 100.0


def requests_of(sizes: Sequence[int]) -> list[Request]:
    """Returns requests of which each size has as many images, and none the same seeds."""
    seeds = iter(range(0, 2**40, max(sizes)))
    return [generate(size, next(seeds)) for size in sizes for _ in range(2 * max(sizes) // size)]


def resident_mb(pid: int) -> float:
    """Returns the resident megabytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(resident_bytes, (pid, *map(int, children)))) / 1e6


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[int, int]]:
    """The gateway's process and port."""
    with digitgan_up() as (server, http):
        assert http.base_url.port
        yield server.process.pid, http.base_url.port


@pytest.mark.parametrize("mix", MIXES)
def test_every_request_is_answered_under_overload(service: tuple[int, int], mix: str) -> None:
    pid, port = service
    requests = requests_of(MIXES[mix])
    usual = Load(port, requests).closed(CLIENTS, SECONDS)
    before = resident_mb(pid)
    loaded = Load(port, requests).open(4 * len(usual.of(200)) / usual.took_s, SECONDS)
    for what, outcome in ("capacity", usual), ("four times as many requests", loaded):
        ms = [
            f"{code}: {1e3 * times[int(0.99 * len(times))]:.0f}" for code in (200, 503) if (times := outcome.of(code))
        ]
        print(f"{mix}, {what}: {outcome.images_per_s:,.0f} images/s; p99 ms of {', '.join(ms)}")
    assert loaded.lost == []
    assert len(loaded.of(200)) + len(loaded.of(503)) == loaded.requests
    assert loaded.of(200)
    assert resident_mb(pid) - before < MOST_GROWTH_MB
