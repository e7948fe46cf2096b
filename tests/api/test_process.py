"""The gateway as a process: light, honest about its settings, and orderly when it stops."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support import gateways
from tests.support.misbehaving import Holding, MisbehavingServer
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

MAX_RESIDENT_BYTES = 120 * 10**6
HEAVY = {"h5py", "keras", "matplotlib", "opentelemetry.sdk", "openvino", "rich", "sklearn", "tensorflow", "typer"}
"""What the gateway needs nothing of, and what would make it start late."""


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DIGITGAN_")}
    return subprocess.run(
        [sys.executable, *arguments], env=clean | settings, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_app_brings_nothing_heavy() -> None:
    code = "import sys; from api import main; main.create_app(main.load_settings()); print(*sys.modules)"
    loaded = set(run("-c", code).stdout.split())
    assert "fastapi" in loaded
    assert not HEAVY & loaded


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


def test_a_wrong_setting_is_named_before_anything_listens() -> None:
    ended = run("-m", "api.main", DIGITGAN_SHUTDOWN_DELAY_S="nan")
    assert ended.returncode == 2
    assert "DIGITGAN_SHUTDOWN_DELAY_S=nan: " in ended.stderr
    assert ended.stdout == ""


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("-m", "api.main", DIGITGAN_PORT=str(port))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_port_0_takes_a_free_one_and_ctrl_c_ends_it_with_status_0(faulty_server: MisbehavingServer) -> None:
    with gateways.gateway(faulty_server.target, host="localhost") as process:
        url = process.url
        assert url.startswith("http://localhost:")
        assert httpx.get(f"{url}/healthz/live").status_code == 200
        assert process.stop(signal.SIGINT) == 0


def test_it_is_unready_then_pauses_and_requests_in_progress_are_answered(server: MisbehavingServer) -> None:
    with gateways.gateway(server.target, shutdown_delay_s=3) as process, ThreadPoolExecutor() as pool:
        url = process.url
        assert httpx.get(f"{url}/healthz/ready").status_code == 200
        holding = server.behaviour = Holding()
        try:
            digit = pool.submit(httpx.get, f"{url}/digits/1.png", timeout=60)
            wait_until(lambda: holding.held == 1)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{url}/healthz/ready").status_code == 503)
            assert_problem(httpx.get(f"{url}/healthz/ready"), "not-ready")
            assert httpx.get(f"{url}/healthz/live").status_code == 200
            wait_until(lambda: refuses(url))
            assert process.process.poll() is None
        finally:
            holding.release()
        assert digit.result().status_code == 200
        assert process.process.wait(60) == 0


def test_a_second_signal_does_not_wait(faulty_server: MisbehavingServer) -> None:
    with gateways.gateway(faulty_server.target, shutdown_delay_s=600) as process:
        url = process.url
        process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/healthz/ready").status_code == 503)
        assert process.stop() == 0


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz/live")
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        return False
    return False
