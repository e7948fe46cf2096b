"""GET /models: versions and states as the model server tells them, cards as they lie beside the models."""

import json
from pathlib import Path

import httpx

from serving.apis import ModelVersionStatus
from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer
from tests.api.waiting import wait_until


def test_the_pretrained_models_with_their_cards(http: httpx.Client) -> None:
    models = http.get("/models").json()["models"]
    assert [model["name"] for model in models] == ["generator", "discriminator", "classifier"]
    for model in models:
        card = json.loads((MODELS_DIR / model["name"] / "1" / "model.json").read_text("utf-8"))
        assert (model["status"], model["detail"], model["serving"]) == ("available", None, 1)
        assert model["versions"] == [{"version": 1, "state": "AVAILABLE", "error": None, "card": card}]


def test_without_a_directory_there_are_no_cards(faulty_http: httpx.Client) -> None:
    models = faulty_http.get("/models").json()["models"]
    assert {version["card"] for model in models for version in model["versions"]} == {None}


def test_a_broken_or_missing_card_hides_no_version(faulty_server: MisbehavingServer, tmp_path: Path) -> None:
    card = tmp_path / "generator" / "1" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text("{broken", "utf-8")
    with processes.gateway(faulty_server.target, models_dir=tmp_path) as process:
        models = httpx.get(f"{processes.url_of(process)}/models").json()["models"]
        assert [model["versions"][0]["card"] for model in models] == [None, None, None]
        wait_until(lambda: str(card) in process.log)


def test_a_version_that_failed_says_why(faulty_server: MisbehavingServer, faulty_http: httpx.Client) -> None:
    faulty_server.statuses[GENERATOR] = [(2, ModelVersionStatus.END), (1, ModelVersionStatus.AVAILABLE)]
    faulty_server.errors[2] = (15, "the graph can't be parsed")
    try:
        generator = faulty_http.get("/models").json()["models"][0]
    finally:
        faulty_server.statuses[GENERATOR] = [(1, ModelVersionStatus.AVAILABLE)]
        faulty_server.errors.clear()
    assert (generator["status"], generator["serving"]) == ("degraded", 1)
    assert generator["detail"] == "version 2: DATA_LOSS: the graph can't be parsed; version 1 serves on"
    assert generator["versions"][0] == {
        "version": 2,
        "state": "END",
        "error": {"code": "DATA_LOSS", "message": "the graph can't be parsed"},
        "card": None,
    }


def test_a_model_that_the_server_does_not_know_has_no_versions(
    faulty_server: MisbehavingServer, faulty_http: httpx.Client
) -> None:
    before = faulty_server.statuses.pop(GENERATOR)
    try:
        models = faulty_http.get("/models").json()["models"]
    finally:
        faulty_server.statuses[GENERATOR] = before
    (generator,) = [model for model in models if model["name"] == "generator"]
    assert generator == {
        "name": "generator",
        "status": "unavailable",
        "detail": "no version is AVAILABLE (there are none)",
        "serving": None,
        "versions": [],
    }
