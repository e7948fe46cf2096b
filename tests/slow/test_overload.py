"""Under four times the load that the service can take, every request is answered: with its digits, or with 503.

How fast is ``python -m benchmarks.overload``'s to say.
"""

from collections.abc import Iterator

import pytest

from benchmarks.load import Load
from benchmarks.overload import MIXES, requests_of, resident_mb
from tests.support.processes import digitgan_up

CLIENTS = 64
SECONDS = 20.0
MOST_GROWTH_MB = 100.0


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
    assert loaded.lost == []
    assert len(loaded.of(200)) + len(loaded.of(503)) == loaded.requests
    assert loaded.of(200)
    assert resident_mb(pid) - before < MOST_GROWTH_MB
