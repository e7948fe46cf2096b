"""The gateway as a process: light, and orderly when it stops."""

import signal
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support import gateways
from tests.support.misbehaving import Holding
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

MAX_RESIDENT_BYTES = 120 * 10**6


def test_it_stays_small_while_it_serves(model_server: str) -> None:
    """A gateway of its own: 200 MB go through it as one stream, and the memory of a few batches stays."""
    with gateways.serving(model_server) as http:
        gateway = http.process
        for seed in range(20):
            assert http.get(f"/digits/{seed}.png").status_code == 200
        assert http.post("/generate", json={"count": 512}).status_code == 200
        assert gateway.resident_bytes() < MAX_RESIDENT_BYTES
        http.post("/generate", json={"count": 256, "scale": 8}, headers={"Accept": "application/x-npy"})
        before = gateway.resident_bytes()
        received = 0
        body = {"count": 1024, "scale": 16}
        with http.stream("POST", "/generate", json=body, headers={"Accept": "application/x-npy"}) as response:
            for piece in response.iter_raw():
                received += len(piece)
        assert received > 200e6
        assert gateway.resident_bytes() - before < 20e6


def test_requests_in_progress_are_answered_while_new_connections_are_refused() -> None:
    with gateways.faulty(shutdown_delay_s=0.1) as http, ThreadPoolExecutor() as pool:
        holding = http.server.behaviour = Holding()
        try:
            digit = pool.submit(http.get, "/digits/1.png")
            wait_until(lambda: holding.held == 1)
            http.process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(http.process.url))
            assert http.process.process.poll() is None
        finally:
            holding.release()
        assert digit.result().status_code == 200
        assert http.process.process.wait(60) == 0


def test_it_is_unready_and_serves_on_during_the_pause_and_a_second_signal_ends_that() -> None:
    with gateways.faulty(shutdown_delay_s=600) as http:
        assert http.get("/healthz/ready").status_code == 200
        http.process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/healthz/ready").status_code == 503)
        assert_problem(http.get("/healthz/ready"), "not-ready")
        assert http.get("/healthz/live").status_code == 200
        assert http.process.stop() == 0


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz/live", timeout=60)
    except httpx.HTTPError as error:
        return isinstance(error, httpx.ConnectError)
    return False
