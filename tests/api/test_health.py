"""Live, ready and model ready are three questions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.routes import health
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.apis import ModelVersionStatus
from serving.contract import DISCRIMINATOR, GENERATOR, MODELS
from serving.tf_serving.client import ModelClient
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer
from tests.api.problem import assert_problem


@pytest.fixture(autouse=True)
def _models_recover(faulty_server: MisbehavingServer) -> Iterator[None]:
    before = {name: list(states) for name, states in faulty_server.statuses.items()}
    yield
    faulty_server.statuses = before


def test_live_and_ready_with_the_real_models(http: httpx.Client) -> None:
    assert http.get("/healthz/live").json() == {"status": "live"}
    assert http.get("/healthz/ready").json() == {"status": "ready"}
    assert http.head("/healthz/ready").status_code == 200


@pytest.mark.parametrize("state", ["START", "LOADING", "UNLOADING", "END"])
def test_a_model_that_is_not_available_is_named(
    faulty_server: MisbehavingServer, faulty_http: httpx.Client, state: str
) -> None:
    assert faulty_http.get("/healthz/ready").status_code == 200
    faulty_server.statuses[DISCRIMINATOR] = [(3, getattr(ModelVersionStatus, state))]
    document = assert_problem(faulty_http.get("/healthz/ready"), "not-ready", "discriminator")
    assert f"3 {state}" in document["errors"][0]["detail"]
    assert faulty_http.get("/healthz/live").status_code == 200


def test_one_available_version_is_enough(faulty_server: MisbehavingServer, faulty_http: httpx.Client) -> None:
    faulty_server.statuses[GENERATOR] = [(2, ModelVersionStatus.END), (1, ModelVersionStatus.AVAILABLE)]
    assert faulty_http.get("/healthz/ready").status_code == 200


def test_models_that_the_server_does_not_know_are_named(
    faulty_server: MisbehavingServer, faulty_http: httpx.Client
) -> None:
    faulty_server.statuses = {}
    assert_problem(faulty_http.get("/healthz/ready"), "not-ready", *MODELS)


def test_a_model_without_versions_is_not_ready(faulty_server: MisbehavingServer, faulty_http: httpx.Client) -> None:
    """All of none isn't ready."""
    faulty_server.statuses[GENERATOR] = []
    assert_problem(faulty_http.get("/healthz/ready"), "not-ready", "generator")


def test_a_model_server_too_busy_to_tell_is_taken_at_its_last_word() -> None:
    """Otherwise slowness alone would leave a Service without a gateway. Nobody's word is nobody's word."""
    with MisbehavingServer("127.0.0.1:0") as server, processes.gateway(server.target) as process:
        url = processes.url_of(process)
        assert httpx.get(f"{url}/healthz/ready").status_code == 200
        server.silent = True
        assert httpx.get(f"{url}/healthz/ready").status_code == 200
        with processes.gateway(server.target, ready_timeout_s=0.2) as newcomer:
            assert_problem(httpx.get(f"{processes.url_of(newcomer)}/healthz/ready"), "not-ready", *MODELS)


def test_a_last_word_does_not_count_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[list[dict[str, str]]]:
        with MisbehavingServer("127.0.0.1:0") as server:
            lifecycle = health.Lifecycle()
            client = ModelClient(server.target)
            inference = Inference(client, Metrics())
            answers = [await health.unready_models(inference, lifecycle, 5)]
            server.silent = True
            answers.append(await health.unready_models(inference, lifecycle, 0.2))
            monkeypatch.setattr(health, "STALE_STATUS_S", 0.0)
            answers.append(await health.unready_models(inference, lifecycle, 0.2))
            await client.close()
            return answers

    known, silent, too_long = asyncio.run(ask())
    assert (known, silent) == ([], [])
    assert [complaint["model"] for complaint in too_long] == list(MODELS)


def test_without_a_model_server_it_is_live_and_not_ready(sockets: Path) -> None:
    with processes.gateway(f"unix:{sockets}/nobody.sock") as process:
        url = processes.url_of(process)
        assert httpx.get(f"{url}/healthz/live").status_code == 200
        assert_problem(httpx.get(f"{url}/healthz/ready"), "not-ready", *MODELS)
        assert_problem(httpx.get(f"{url}/models"), "model-server-unreachable")
        assert_problem(httpx.get(f"{url}/digits/7.png"), "model-server-unreachable")
