"""A thousand slow clients cost little memory and disturb no other client.

Each kind of client has a gateway of its own, in front of the real model server. Another client sends one request after
the other; its times are printed.
"""

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.repeating import repeating
from tests.support.slow_clients import SLOW, hanging, port_of

CONNECTIONS: Final = 1000
MOST_GROWTH_BYTES: Final = 300 * 10**6
"""Of the gateway: twice DIGITGAN_MAX_WAITING_BYTES, and what Python keeps to use again."""
WORK_S: Final = 8.0
"""For what the slow clients request, which keeps the model busy."""
HANG_S: Final = 10.0
SETTLE_S: Final = 2.0


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
