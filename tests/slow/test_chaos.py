"""The model server is killed by SIGKILL, again and again at random, while clients send requests without a pause.

Each time it stays away for a moment and is started again. Every request that fails is a 503, as a problem document.
Readiness follows in both directions, and digits come again. At last some clients disconnect in the middle of large
requests, and no call of the model server is left in flight.
"""

import contextlib
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import httpx
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.waiting import wait_until

KILLS: Final = 10
CLIENTS: Final = 8
TIMEOUT_S: Final = 10.0
"""DIGITGAN_REQUEST_TIMEOUT_S of the gateway."""

PIXEL: Final = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\x02\0\x01H\xaf\xa4q"
    b"\0\0\0\0IEND\xaeB`\x82"
)
"""A PNG."""

REQUESTS: Final[tuple[Callable[[httpx.Client, int], httpx.Response], ...]] = (
    lambda http, number: http.get(f"/digits/{number}.png"),
    lambda http, number: http.post("/generate", json={"seeds": [number, number + 1]}),
    lambda http, number: http.post("/generate", json={"count": 600}),
    lambda http, number: http.post("/interpolate", json={"seeds": [number, 2], "steps": 5}),
    lambda http, number: http.post("/score", files={"images": PIXEL}),
)


@dataclass
class Findings:
    """What the clients received."""

    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def note(self, answer: httpx.Response) -> None:
        """Counts an answer, and what is wrong with it."""
        problem = "" if answer.status_code < 400 else answer.json().get("type", "")
        self.answers[f"{answer.status_code} {problem}".strip()] += 1
        if answer.status_code >= 400 and (
            answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json"
        ):
            self.broken.append(f"{answer.status_code}: {answer.text[:300]}")


class Chaos:
    """A gateway, and a model server that comes and goes. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "model-server.sock"
        self._stack = ExitStack()
        self._ended = threading.Event()
        self.findings = Findings()

    def __enter__(self) -> Self:
        self._start_server()
        gateway = gateways.gateway(f"unix:{self._socket}", request_timeout_s=TIMEOUT_S)
        self.url = self._stack.enter_context(gateway).url
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Kills the model server KILLS times, with CLIENTS clients that never pause."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._send, number) for number in range(CLIENTS)]
            try:
                for _ in range(KILLS):
                    time.sleep(random.uniform(0.5, 3))
                    self._kill()
            finally:
                self._ended.set()
        for client in clients:
            client.result()

    def _start_server(self) -> None:
        self._server = self._stack.enter_context(gateways.model_server(MODELS_DIR, self._socket))

    def _send(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=6 * TIMEOUT_S) as http:
            while not self._ended.is_set():
                number += CLIENTS
                try:
                    answer = random.choice(REQUESTS)(http, number)
                except httpx.HTTPError as error:
                    self.findings.broken.append(f"no answer at all: {error!r}")
                    continue
                self.findings.note(answer)
                if answer.status_code != 200:
                    time.sleep(0.05)

    def _kill(self) -> None:
        self._server.stop(signal.SIGKILL)
        self._wait_for("/healthz/ready", 503)
        self._start_server()
        self._wait_for("/digits/7.png", 200)
        self._wait_for("/healthz/ready", 200)

    def _wait_for(self, path: str, status: int) -> None:
        wait_until(lambda: httpx.get(self.url + path, timeout=60).status_code == status)

    def leave(self) -> None:
        """Disconnects in the middle of large requests."""
        for accept in ("application/json", "application/zip", "application/x-npy"):
            for _ in range(8):
                with contextlib.suppress(httpx.HTTPError):
                    httpx.post(
                        f"{self.url}/generate",
                        json={"count": 4096, "scale": 2},
                        headers={"Accept": accept},
                        timeout=httpx.Timeout(10, read=0.1),
                    )

    def in_flight(self) -> dict[str, float]:
        """Returns the gauges of work in progress, without this very request."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = {
            name: float(value) for name, value in re.findall(r"^(digitgan_\w*in_flight\S*) (\S+)$", lines, re.MULTILINE)
        }
        found["digitgan_http_requests_in_flight"] -= 1
        return found


@pytest.mark.timeout(900)
def test_a_killed_model_server_gives_503_and_is_used_again_when_it_is_back(sockets: Path) -> None:
    with Chaos(sockets) as chaos:
        chaos.run()
        print(chaos.findings.answers)
        assert chaos.findings.broken == []
        assert chaos.findings.answers["503 /problems/model-server-unreachable"]
        assert chaos.findings.answers["200"]
        chaos.leave()
        wait_until(lambda: not any(chaos.in_flight().values()))
