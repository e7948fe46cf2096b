"""Readiness, metrics and GET /models ask for the version that the routes ask for: the one with the label."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.apis import ModelVersionStatus
from serving.contract import DISCRIMINATOR, GENERATOR, MODELS
from serving.pretrained import MODELS_DIR
from serving.tf_serving.server_config import MODELS_CONFIG, models_config
from serving.versions.model_copy import add_versions
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer
from tests.api.problem import assert_problem
from tests.support.processes import ModelServerProcess, free_port


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        server.behaviour = server.by_label
        server.statuses = {
            model: [(2, ModelVersionStatus.AVAILABLE), (1, ModelVersionStatus.AVAILABLE)] for model in MODELS
        }
        yield server


@pytest.fixture(scope="module")
def client(server: MisbehavingServer) -> Iterator[httpx.Client]:
    with (
        processes.gateway(server.target, version_label="stable") as process,
        httpx.Client(base_url=processes.url_of(process)) as client,
    ):
        yield client


def available(client: httpx.Client, model: str) -> str:
    (line,) = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f'digitgan_model_available{{model="{model}"}}')
    ]
    return line.rpartition(" ")[2]


def test_a_model_with_the_label_is_available(server: MisbehavingServer, client: httpx.Client) -> None:
    server.labels = {model: {"stable": 1} for model in MODELS}
    assert client.get("/healthz/ready").status_code == 200
    assert available(client, GENERATOR) == "1.0"
    assert 'digitgan_model_serving_version{model="generator"} 1.0' in client.get("/metrics").text
    generator = client.get("/models").json()["models"][0]
    assert (generator["status"], generator["serving"]) == ("available", 1)
    assert client.post("/generate", json={"seeds": [7]}).json()["version"] == 1


def test_a_model_without_the_label_is_not_available(server: MisbehavingServer, client: httpx.Client) -> None:
    server.labels = {model: {"stable": 1} for model in MODELS if model != DISCRIMINATOR}
    document = assert_problem(client.get("/healthz/ready"), "not-ready", DISCRIMINATOR)
    assert [error["model"] for error in document["errors"]] == [DISCRIMINATOR]
    assert "stable" in document["errors"][0]["detail"]
    assert client.get(f"/v2/models/{GENERATOR}/ready").status_code == 200
    assert_problem(client.get(f"/v2/models/{DISCRIMINATOR}/ready"), "not-ready", DISCRIMINATOR)
    assert (available(client, GENERATOR), available(client, DISCRIMINATOR)) == ("1.0", "0.0")
    (model,) = [one for one in client.get("/models").json()["models"] if one["name"] == DISCRIMINATOR]
    assert (model["status"], model["serving"]) == ("unavailable", None)
    assert "stable" in model["detail"]


def test_without_any_label_every_model_is_named(server: MisbehavingServer, client: httpx.Client) -> None:
    server.labels = {}
    assert client.post("/generate", json={"seeds": [7]}).status_code == 503
    assert_problem(client.get("/healthz/ready"), "not-ready", *MODELS)


def test_models_on_a_new_volume_serve_without_a_promotion(program: str, tmp_path: Path) -> None:
    """A server without labels is not ready for a gateway that asks for one; ``digitgan models add`` gives the label."""
    add_versions(MODELS_DIR, tmp_path, tmp_path, print)
    config = tmp_path / MODELS_CONFIG
    unlabelled = tmp_path / "unlabelled.config"
    unlabelled.write_text(models_config(MODELS, tmp_path))
    for file, status in ((unlabelled, 503), (config, 200)):
        port = free_port()
        flags = [
            f"--port={port}",
            f"--model_config_file={file}",
            "--allow_version_labels_for_unavailable_models=true",
            "--enable_serialization_as_tensor_content=true",
        ]
        with (
            ModelServerProcess(program, flags, f"127.0.0.1:{port}") as server,
            processes.gateway(server.target, version_label="stable", ready_timeout_s=30) as process,
        ):
            url = processes.url_of(process)
            assert httpx.get(f"{url}/healthz/ready", timeout=60).status_code == status
            assert httpx.get(f"{url}/digits/7.png", timeout=60).status_code == status
