"""Kills the model server by SIGKILL, again and again at random, while clients ask without pause.

    python -m benchmarks.chaos [--kills 10] [--clients 8]

Each time it stays away for a moment and is started again. The promises: every request that fails is a 503, as a problem
document; none takes longer than its time; requests during the outage are answered soon; readiness follows in both
directions; and the first digit comes within 2 s of the model server being back. At last some clients leave in the
middle of large requests, and no call of the model server is left in flight. The exit status is 1 if one is broken.
"""

import argparse
import contextlib
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from serving.pretrained import MODELS_DIR
from tests.gateway import processes
from tests.gateway.processes import ServerProcess

RECOVERY_S: Final = 2.0
READY_S: Final = 3.0
"""For readiness to follow, in either direction."""
TIMEOUT_S: Final = 10.0
"""Of a request: DIGITGAN_REQUEST_TIMEOUT_S; and what the answer takes besides, on a busy machine."""
SLACK_S: Final = 5.0
LEAVE_S: Final = 30.0

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
    """What the clients saw. ``outages``: when each began and when the model server was back, in time.monotonic."""

    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    unready_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)

    def note(self, answer: httpx.Response, seconds: float) -> None:
        """Counts an answer, and what is wrong with it."""
        slug = "" if answer.status_code < 400 else answer.json().get("type", "")
        self.answers[f"{answer.status_code} {slug}".strip()] += 1
        self.longest_s = max(self.longest_s, seconds)
        if answer.status_code >= 400:
            self.refusals_s.append(seconds)
            if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
                self.broken.append(f"{answer.status_code}: {answer.text[:300]}")
        if seconds > TIMEOUT_S + SLACK_S:
            self.broken.append(f"a request took {seconds:.1f} s")


class Chaos:
    """A gateway, and a model server that comes and goes."""

    def __init__(self, directory: Path, clients: int) -> None:
        self._socket = directory / "model-server.sock"
        self._server = processes.model_server(MODELS_DIR, self._socket).__enter__()
        self._gateway = processes.gateway(f"unix:{self._socket}", request_timeout_s=TIMEOUT_S).__enter__()
        self._url = processes.url_of(self._gateway)
        self._ended = threading.Event()
        self._clients = clients
        self.findings = Findings()

    def run(self, kills: int) -> Findings:
        """Kills so often, then leaves large requests; returns what was seen."""
        with ThreadPoolExecutor(self._clients) as pool:
            asking = [pool.submit(self._ask, number) for number in range(self._clients)]
            try:
                for _ in range(kills):
                    time.sleep(random.uniform(0.5, 3))
                    self._kill()
            finally:
                self._ended.set()
        for one in asking:
            one.result()
        self._leave()
        return self.findings

    def stop(self) -> None:
        """Ends both processes."""
        self._gateway.stop()
        self._server.stop()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S + 2 * SLACK_S) as http:
            while not self._ended.is_set():
                number += self._clients
                start = time.monotonic()
                try:
                    answer = random.choice(REQUESTS)(http, number)
                except httpx.HTTPError as error:
                    self.findings.broken.append(f"no answer at all: {error!r}")
                    continue
                self.findings.note(answer, time.monotonic() - start)
                if answer.status_code != 200:
                    time.sleep(0.05)

    def _kill(self) -> None:
        self._server.stop(signal.SIGKILL)
        gone = time.monotonic()
        self.findings.unready_s.append(self._until("/healthz/ready", 503) - gone)
        self._server = _started(processes.model_server(MODELS_DIR, self._socket))
        back = time.monotonic()
        self.findings.recoveries_s.append(self._until("/digits/7.png", 200) - back)
        self.findings.ready_s.append(self._until("/healthz/ready", 200) - back)
        self.findings.outages.append((gone, back))

    def _until(self, path: str, status: int) -> float:
        """Waits until ``path`` answers with ``status``; returns the time."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if httpx.get(self._url + path, timeout=30).status_code == status:
                return time.monotonic()
            time.sleep(0.02)
        raise TimeoutError(f"{path} has not become {status}")

    def _leave(self) -> None:
        """Leaves requests in the middle, and waits until nothing of them is left."""
        for accept in ("application/json", "application/zip", "application/x-npy"):
            for _ in range(8):
                with contextlib.suppress(httpx.HTTPError):
                    httpx.post(
                        f"{self._url}/generate",
                        json={"count": 4096, "scale": 2},
                        headers={"Accept": accept},
                        timeout=httpx.Timeout(10, read=0.1),
                    )
        end = time.monotonic() + LEAVE_S
        while time.monotonic() < end:
            self.findings.left = self._in_flight()
            if not any(self.findings.left.values()):
                return
            time.sleep(0.1)

    def _in_flight(self) -> dict[str, float]:
        """Returns the gauges of what is under way, but for this very request."""
        lines = httpx.get(f"{self._url}/metrics", timeout=30).text
        found = {
            name: float(value) for name, value in re.findall(r"^(digitgan_\w*in_flight\S*) (\S+)$", lines, re.MULTILINE)
        }
        found["digitgan_http_requests_in_flight"] -= 1
        return found


def _started(process: ServerProcess) -> ServerProcess:
    return process.__enter__()


def verdict(findings: Findings, slack: float = 1.0) -> list[str]:
    """Returns which promises are broken, after printing what was seen. ``slack``: times the time that is promised."""
    total = findings.answers.total()
    print(f"{total:,} requests, {len(findings.outages)} kills; the longest took {findings.longest_s:.2f} s")
    for answer, count in findings.answers.most_common():
        print(f"  {count:6,} {answer}")
    rows = (
        ("a failed request is answered after", findings.refusals_s, TIMEOUT_S + SLACK_S),
        ("unready after the model server is gone", findings.unready_s, READY_S),
        ("ready after it is back", findings.ready_s, READY_S),
        ("the first digit after it is back", findings.recoveries_s, RECOVERY_S),
    )
    broken = list(findings.broken)
    for what, seconds, most in rows:
        if seconds:
            mean = sum(seconds) / len(seconds)
            print(f"{what}: {mean:.2f} s on average, {max(seconds):.2f} s at most")
            if max(seconds) > most * slack:
                broken.append(f"{what} {max(seconds):.2f} s; {most:g} s at most")
    print(f"in flight after clients have left: {findings.left}")
    if any(findings.left.values()):
        broken.append(f"work is left: {findings.left}")
    return broken


def main() -> int:
    """Kills, prints, and tells whether a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how often the model server is killed")
    parser.add_argument("--clients", type=int, default=8, help="how many ask at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        chaos = Chaos(Path(directory), options.clients)
        try:
            broken = verdict(chaos.run(options.kills))
        finally:
            chaos.stop()
    for promise in broken[:20]:
        print(f"BROKEN: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
