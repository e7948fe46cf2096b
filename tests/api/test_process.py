"""The gateway as a process: its settings are checked, it is light and never busy for long, and it stops orderly."""

import asyncio
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from api.http.bodies import read_json
from api.http.schemas import GenerateRequest
from api.settings import load_settings
from serving.errors import UserError
from tests.support.gateways import FaultyClient, assert_problem, faulty_gateway, serving
from tests.support.misbehaving import Holding
from tests.support.processes import wait_until


def test_it_stays_small_while_it_serves(model_server: str) -> None:
    """A gateway of its own: 200 MB go through it as one stream, and the memory of a few batches stays."""
    with serving(model_server) as http:
        gateway = http.process
        for seed in range(20):
            assert http.get(f"/digits/{seed}.png").status_code == 200
        assert http.post("/generate", json={"count": 512}).status_code == 200
        assert gateway.resident_bytes() < 120e6
        http.post("/generate", json={"count": 256, "scale": 8}, headers={"Accept": "application/x-npy"})
        before = gateway.resident_bytes()
        body = {"count": 1024, "scale": 16}
        with http.stream("POST", "/generate", json=body, headers={"Accept": "application/x-npy"}) as response:
            assert sum(len(piece) for piece in response.iter_raw()) > 200e6
        assert gateway.resident_bytes() - before < 20e6


def test_a_large_body_is_read_beside_other_work() -> None:
    """The event loop gets to other work while 500,000 seeds are parsed and checked."""

    async def receive() -> Message:
        return {"type": "http.request", "body": orjson.dumps({"seeds": list(range(500_000))}), "more_body": False}

    async def turns_of_other_work() -> int:
        scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
        reading = asyncio.create_task(read_json(Request(scope, receive), GenerateRequest))
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(reading.result().seeds) == 500_000
        return turns

    assert asyncio.run(turns_of_other_work()) > 3


def test_the_path_of_4096_seeds_does_not_block_the_event_loop(faulty: FaultyClient) -> None:
    """Other requests are answered before the first call for its digits."""
    answered, calls = 0, faulty.server.calls
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(faulty.post, "/interpolate", json={"seeds": list(range(4096)), "steps": 1})
        while faulty.server.calls == calls and not asked.done():
            answered += faulty.metric("http_requests_in_flight") == 2  # this one and the path
    assert asked.result().status_code == 200, asked.result().text
    assert answered > 3


def test_requests_in_progress_are_answered_while_new_connections_are_refused() -> None:
    with faulty_gateway(shutdown_delay_s=0.1) as http, ThreadPoolExecutor() as pool, Holding() as holding:
        http.server.behaviour = holding
        digit = pool.submit(http.get, "/digits/1.png")
        wait_until(lambda: holding.held == 1)
        http.process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(http))
        assert http.process.process.poll() is None
        holding.release()
        assert digit.result().status_code == 200
        assert http.process.process.wait(60) == 0


def test_it_is_unready_and_serves_on_during_the_pause_and_a_second_signal_ends_that() -> None:
    with faulty_gateway(shutdown_delay_s=600) as http:
        assert http.get("/healthz/ready").status_code == 200
        http.process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/healthz/ready").status_code == 503)
        assert_problem(http.get("/healthz/ready"), "not-ready")
        assert http.get("/healthz/live").status_code == 200
        assert http.process.stop() == 0


def refuses(http: FaultyClient) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", http.base_url.port or 0)) != 0


def test_arguments_precede_the_environment_and_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_PORT", "1234")
    monkeypatch.setenv("DIGITGAN_MODELS_DIR", "/models")
    monkeypatch.setenv("DIGITGAN_HOST", "")  # counts as absent
    settings = load_settings()
    assert (settings.port, settings.models_dir, settings.host) == (1234, Path("/models"), "127.0.0.1")
    assert load_settings(port=0).port == 0
    monkeypatch.setenv("DIGITGAN_PORT", "http")
    monkeypatch.setenv("DIGITGAN_LOG_LEVEL", "loud")
    with pytest.raises(UserError, match=r"DIGITGAN_PORT=http: (.|\n)*DIGITGAN_LOG_LEVEL=loud: "):
        load_settings()


def test_origins() -> None:
    assert load_settings(cors_origins="https://a.b:1, http://c").cors_origins == ("https://a.b:1", "http://c")
    assert load_settings(cors_origins="*").cors_origins == ("*",)
    for wrong in ("a.b", "ftp://a.b", "https://a.b/", "https://"):
        with pytest.raises(UserError, match=r"DIGITGAN_CORS_ORIGINS=.*should be origins like https://example.org"):
            load_settings(cors_origins=wrong)


def test_the_model_servers_address() -> None:
    several = "ipv4:10.0.0.1:8500,10.0.0.2:8500"
    for target in ("localhost:8500", "[::1]:8500", "dns:///models:8500", "unix:/run/models.sock", several):
        assert load_settings(model_server=target).model_server == target
    for wrong in ("localhost", ":8500", "localhost:", "localhost:0", "localhost:65536", "a:b"):
        with pytest.raises(UserError, match=r"DIGITGAN_MODEL_SERVER=.*should be host:port"):
            load_settings(model_server=wrong)
