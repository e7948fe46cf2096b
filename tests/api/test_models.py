"""The status of the models in readiness, GET /models and the metrics: of the newest version or the one with a label."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.apis import ModelVersionStatus
from serving.contract import DISCRIMINATOR, GENERATOR, MODELS
from tests.support.gateways import FaultyClient, GatewayClient, assert_problem, faulty_gateway, serving
from tests.support.misbehaving import MisbehavingServer
from tests.support.pretrained import VERSIONS, pretrained
from tests.support.processes import wait_until

STATES: dict[str, int] = dict(ModelVersionStatus.State.items())


def model(http: httpx.Client, name: str) -> dict[str, Any]:
    """Returns what GET /models says of a model."""
    (found,) = [one for one in http.get("/models").json()["models"] if one["name"] == name]
    return dict(found)


def test_the_pretrained_models_are_ready_and_have_their_cards(http: GatewayClient) -> None:
    assert http.get("/healthz/live").json() == {"status": "live"}
    assert http.get("/healthz/ready").json() == {"status": "ready"}
    assert http.head("/healthz/ready").status_code == 200
    models = http.get("/models").json()["models"]
    assert [one["name"] for one in models] == ["generator", "discriminator", "classifier"]
    for one in models:
        version = VERSIONS[one["name"]]
        card = json.loads((pretrained(one["name"]) / "model.json").read_text("utf-8"))
        assert (one["status"], one["detail"], one["serving"]) == ("available", None, version)
        assert one["versions"] == [{"version": version, "state": "AVAILABLE", "error": None, "card": card}]


def test_a_broken_or_missing_card_hides_no_version(tmp_path: Path) -> None:
    card = tmp_path / "generator" / "1" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text("{broken", "utf-8")
    with faulty_gateway(models_dir=tmp_path) as http:
        assert [model(http, name)["versions"][0]["card"] for name in MODELS] == [None, None, None]
        wait_until(lambda: str(card) in http.process.log)


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        *(([(3, number)], f"3 {state}") for state, number in STATES.items() if state not in ("UNKNOWN", "AVAILABLE")),
        ([], "there are none"),
        (None, "there are none"),
    ],
)
def test_a_model_that_is_not_available_is_named(
    faulty: FaultyClient, statuses: list[tuple[int, int]] | None, words: str
) -> None:
    del faulty.server.statuses[DISCRIMINATOR]
    if statuses is not None:
        faulty.server.statuses[DISCRIMINATOR] = statuses
    document = assert_problem(faulty.get("/healthz/ready"), "not-ready", DISCRIMINATOR)
    assert words in document["errors"][0]["detail"]
    found = model(faulty, DISCRIMINATOR)
    assert (found["status"], found["serving"]) == ("unavailable", None)
    assert words in found["detail"]
    assert faulty.get("/healthz/live").status_code == 200


def test_a_model_server_too_busy_to_answer_has_its_last_status_for_a_while() -> None:
    """Otherwise slowness alone would leave a Service without a gateway."""
    program = "from api.routes import status; status.STALE_STATUS_S = 0; from api.main import main; main()"
    with MisbehavingServer("127.0.0.1:0") as server:
        with (
            serving(server.target, ready_timeout_s=0.5) as patient,
            serving(server.target, ("-c", program), ready_timeout_s=0.5) as other,
        ):
            for http in (other, patient):
                wait_until(lambda http=http: http.get("/healthz/ready").status_code == 200)  # type: ignore[misc]
            server.silent = True
            assert patient.get("/healthz/ready").status_code == 200
            assert_problem(other.get("/healthz/ready"), "not-ready", *MODELS)
        with serving(server.target, ready_timeout_s=0.2) as newcomer:
            assert_problem(newcomer.get("/healthz/ready"), "not-ready", *MODELS)


def test_with_a_version_label_they_are_those_of_the_version_that_the_routes_ask_for() -> None:
    with faulty_gateway(version_label="stable") as http:
        server = http.server
        server.behaviour = server.by_label
        server.statuses = {name: [(2, STATES["AVAILABLE"]), (1, STATES["AVAILABLE"])] for name in MODELS}
        assert http.post("/generate", json={"seeds": [7]}).status_code == 503
        assert_problem(http.get("/healthz/ready"), "not-ready", *MODELS)

        server.labels = {name: {"stable": 1} for name in MODELS if name != DISCRIMINATOR}
        document = assert_problem(http.get("/healthz/ready"), "not-ready", DISCRIMINATOR)
        assert "stable" in document["errors"][0]["detail"]
        assert http.get(f"/v2/models/{GENERATOR}/ready").status_code == 200
        assert_problem(http.get(f"/v2/models/{DISCRIMINATOR}/ready"), "not-ready", DISCRIMINATOR)
        assert [http.metric("model_available", model=name) for name in (GENERATOR, DISCRIMINATOR)] == [1, 0]
        found = model(http, DISCRIMINATOR)
        assert (found["status"], found["serving"]) == ("unavailable", None)
        assert "stable" in found["detail"]

        server.labels[DISCRIMINATOR] = {"stable": 1}
        assert http.get("/healthz/ready").status_code == 200
        assert http.metric("model_serving_version", model=GENERATOR) == 1
        generator = model(http, GENERATOR)
        assert (generator["status"], generator["serving"]) == ("available", 1)
        assert http.post("/generate", json={"seeds": [7]}).json()["version"] == 1
