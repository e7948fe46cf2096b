"""A thousand slow clients cost little memory and disturb no other client.

Each kind of client has a gateway of its own, in front of the real model server. Another client sends one request after
the other.
"""

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.repeating import repeating
from tests.support.slow_clients import SLOW, hanging

CONNECTIONS: Final = 1000
MOST_GROWTH_BYTES: Final = 300 * 10**6
"""Of the gateway: twice DIGITGAN_MAX_WAITING_BYTES, and what Python keeps to use again."""
WORK_S: Final = 8.0
"""For what the slow clients request, which keeps the model busy."""
HANG_S: Final = 10.0
SETTLE_S: Final = 2.0


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

        def digit() -> int:
            """Requests a digit. Returns the status, 0 without an answer."""
            time.sleep(0.01)
            with contextlib.suppress(httpx.HTTPError):
                return http.get("/digits/7.png").status_code
            return 0

        with repeating(digit) as answers:
            time.sleep(SETTLE_S)
            memory = http.process.resident_bytes()
            with hanging(http, SLOW[name], CONNECTIONS):
                time.sleep(WORK_S)  # a burst of a thousand connections is overload: some requests may get 503
                connected = len(answers)
                time.sleep(HANG_S)
                grown = http.process.resident_bytes() - memory
                hung = len(answers)
        assert set(answers[connected:hung]) == {200}
        assert grown < MOST_GROWTH_BYTES
