"""The gateway as a process: light, and orderly when it stops."""

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from tests.support import gateways
from tests.support.misbehaving import Holding, MisbehavingServer
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

MAX_RESIDENT_BYTES = 120 * 10**6


get = partial(httpx.get, timeout=60)


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


def test_requests_in_progress_are_answered_while_new_connections_are_refused(server: MisbehavingServer) -> None:
    with gateways.gateway(server.target, shutdown_delay_s=0.1) as process, ThreadPoolExecutor() as pool:
        url = process.url
        holding = server.behaviour = Holding()
        try:
            digit = pool.submit(get, f"{url}/digits/1.png")
            wait_until(lambda: holding.held == 1)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(url))
            assert process.process.poll() is None
        finally:
            holding.release()
        assert digit.result().status_code == 200
        assert process.process.wait(60) == 0


def test_it_is_unready_and_serves_on_during_the_pause_and_a_second_signal_ends_that(
    faulty_server: MisbehavingServer,
) -> None:
    with gateways.gateway(faulty_server.target, shutdown_delay_s=600) as process:
        url = process.url
        assert get(f"{url}/healthz/ready").status_code == 200
        process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: get(f"{url}/healthz/ready").status_code == 503)
        assert_problem(get(f"{url}/healthz/ready"), "not-ready")
        assert get(f"{url}/healthz/live").status_code == 200
        assert process.stop() == 0


def refuses(url: str) -> bool:
    try:
        get(f"{url}/healthz/live")
    except httpx.HTTPError as error:
        return isinstance(error, httpx.ConnectError)
    return False
