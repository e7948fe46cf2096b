"""The model server is killed by SIGKILL, again and again at random, while clients send requests without a pause.

Each time it stays away for a moment and is started again. Every request that fails is a 503, as a problem document.
Readiness follows in both directions, and digits come again. At last no call of the model server is left in flight.
"""

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.pictures import saved
from tests.support.processes import ModelServerProcess
from tests.support.repeating import repeating
from tests.support.waiting import wait_until

KILLS: Final = 10
CLIENTS: Final = 8
TIMEOUT_S: Final = 10.0
"""DIGITGAN_REQUEST_TIMEOUT_S of the gateway."""
PICTURE: Final = saved(np.zeros((1, 1), np.uint8))
REQUESTS: Final[tuple[Callable[[httpx.Client, int], httpx.Response], ...]] = (
    lambda http, number: http.get(f"/digits/{number}.png"),
    lambda http, number: http.post("/generate", json={"seeds": [number, number + 1]}),
    lambda http, number: http.post("/generate", json={"count": 600}),
    lambda http, number: http.post("/interpolate", json={"seeds": [number, 2], "steps": 5}),
    lambda http, number: http.post("/score", files={"images": PICTURE}),
)


@pytest.mark.timeout(900)
def test_a_killed_model_server_gives_503_and_is_used_again_when_it_is_back(sockets: Path) -> None:
    with ExitStack() as stack:

        def start() -> ModelServerProcess:
            server = gateways.model_server(MODELS_DIR, sockets / "chaos.sock")
            stack.enter_context(server)
            return server

        server = start()
        http = stack.enter_context(gateways.serving(server.target, request_timeout_s=TIMEOUT_S))
        numbers = itertools.count()

        def send() -> str:
            """Sends a request. Returns the status, and what problem it is; or all that is wrong."""
            answer = random.choice(REQUESTS)(http, next(numbers))
            if answer.status_code == 200:
                return "200"
            time.sleep(0.05)
            if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
                return f"{answer.status_code}: {answer.text[:300]}"
            return f"503 {answer.json()['type']}"

        def wait_for(path: str, status: int) -> None:
            wait_until(lambda: http.get(path).status_code == status)

        with repeating(send, CLIENTS) as answers:
            for _ in range(KILLS):
                time.sleep(random.uniform(0.5, 3))
                server.stop(signal.SIGKILL)
                wait_for("/healthz/ready", 503)
                server = start()
                wait_for("/digits/7.png", 200)
                wait_for("/healthz/ready", 200)
        counts = Counter(answers)
        print(counts)
        assert counts["503 /problems/model-server-unreachable"]
        assert counts["200"]
        assert {answer for answer in counts if not answer.startswith(("200", "503 /problems/"))} == set()
        wait_until(lambda: http.in_flight() == 0)
