"""Replaces every gateway and every model server, one at a time, under a client that never pauses.

    python -m benchmarks.rolling_replacement [--requests 3000] [--rate 50]

Two model servers behind one name and two gateways, as k8s/base has them, on this machine. The client sends at a fixed
rate, and chooses as a Kubernetes Service does: among the gateways that were ready in one of the last two times that
they were asked, twice a second. A replacement starts the new process, waits until it is ready, and then ends the old
one by SIGTERM.

Prints how many requests there were, how many failed, and the latencies; the exit status is 1 if any failed.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

import httpx
import numpy as np

from serving.pretrained import MODELS_DIR
from tests.gateway import processes
from tests.gateway.processes import ServerProcess

MODEL_SERVER = """
import sys
from pathlib import Path
from serving.model_config import from_directory
from serving.model_server.server import ServerOptions, serve
options = ServerOptions(from_directory(Path(sys.argv[1])), port=int(sys.argv[2]))
sys.exit(serve(options, lambda server: print(server.port, flush=True)))
"""
ASK_S = 0.5
FAILURE_THRESHOLD = 2
SHUTDOWN_DELAY_S = 5.0
READY_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0


@dataclass
class Service:
    """What a Kubernetes Service does: it sends to the pods that were ready when they were last asked."""

    gateways: list[ServerProcess]
    ready: list[str] = field(default_factory=list)

    def watch(self, ended: threading.Event) -> None:
        """Asks all gateways until ``ended``."""
        failed: dict[str, int] = {}
        with httpx.Client(timeout=30) as client:
            while not ended.wait(ASK_S):
                urls = [processes.url_of(gateway) for gateway in list(self.gateways)]
                for url in urls:
                    failed[url] = 0 if _is_ready(client, url) else failed.get(url, FAILURE_THRESHOLD) + 1
                self.ready = [url for url in urls if failed[url] < FAILURE_THRESHOLD]


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/healthz/ready").status_code == 200
    except httpx.HTTPError:
        return False


def measure(requests: int, rate: float) -> tuple[list[float], list[str]]:
    """Sends ``requests`` at ``rate`` a second while everything is replaced twice.

    Returns the seconds of those that were answered, and what became of the others.
    """
    seconds: list[float] = []
    failures: list[str] = []
    with ExitStack() as stack:
        start = stack.enter_context
        servers = [start(_model_server(0)) for _ in range(2)]
        target = "ipv4:" + ",".join(f"127.0.0.1:{server.line}" for server in servers)
        service = Service([start(_gateway(target)) for _ in range(2)])
        ended = threading.Event()
        watching = threading.Thread(target=service.watch, args=(ended,))
        watching.start()
        pool = start(ThreadPoolExecutor(64))
        client = start(httpx.Client(timeout=60, limits=httpx.Limits(max_connections=64)))

        def ask(number: int) -> None:
            began = time.perf_counter()
            try:
                answer = client.get(f"{service.ready[number % len(service.ready)]}/digits/{number}.png")
                if answer.status_code != 200:
                    failures.append(answer.text)
            except (httpx.HTTPError, ZeroDivisionError) as error:
                failures.append(repr(error))
            seconds.append(time.perf_counter() - began)

        def replace() -> None:
            for index in range(2):
                old = service.gateways[index]
                service.gateways[index] = start(_gateway(target))
                _until(lambda: processes.url_of(service.gateways[index]) in service.ready)  # noqa: B023
                old.stop()
                port = servers[index].line
                servers[index].stop()
                servers[index] = start(_model_server(int(port)))

        _until(lambda: len(service.ready) == 2)
        replacing = threading.Thread(target=replace)
        replacing.start()
        began = time.perf_counter()
        for number in count():
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            pool.submit(ask, number)
            if number + 1 >= requests and not replacing.is_alive():
                break
        pool.shutdown()
        ended.set()
        watching.join()
    return seconds, failures


def _model_server(port: int) -> ServerProcess:
    return ServerProcess("-c", MODEL_SERVER, str(MODELS_DIR), str(port))


def _gateway(target: str) -> ServerProcess:
    return processes.gateway(
        target,
        shutdown_delay_s=SHUTDOWN_DELAY_S,
        ready_timeout_s=READY_TIMEOUT_S,
        request_timeout_s=REQUEST_TIMEOUT_S,
    )


def _until(condition: Callable[[], bool], deadline_s: float = 120) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it never came true")
        time.sleep(0.05)


def main() -> int:
    """Measures, prints, and tells whether any request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000, help="at least so many; all replacements are finished")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    options = parser.parse_args()
    seconds, failures = measure(options.requests, options.rate)
    p50, p99 = np.percentile(seconds, [50, 99])
    print(f"{len(failures)} of {len(seconds):,} requests failed; p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    for failure in failures[:5]:
        print(f"  {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
