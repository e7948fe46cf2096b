"""The model server behind the gateway: what its models' status is, its failures, and failures that only logs have."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from api.http.current_request import TIMEOUT_HEADER
from api.upstream.inference import SLICE_ROWS
from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import DISCRIMINATOR, GENERATOR, MODELS
from tests.api.test_generate import FORMATS
from tests.support.gateways import FaultyClient, GatewayClient, assert_problem, faulty_gateway, noise_input, serving
from tests.support.misbehaving import MisbehavingServer, delayed, failing, honest
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


@pytest.mark.parametrize(
    ("code", "message", "slug"),
    [
        ("UNAVAILABLE", "failed to connect", "model-server-unreachable"),
        ("UNAVAILABLE", "The batch scheduling queue is full", "overloaded"),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", "overloaded"),
        ("NOT_FOUND", "Servable not found", "model-not-served"),
        *((code, f"/secret/{code}", "broken-contract") for code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")),
        *((code, f"/secret/{code}", "broken-contract") for code in ("INTERNAL", "UNIMPLEMENTED", "UNKNOWN")),
        ("DEADLINE_EXCEEDED", "late", "timeout"),
    ],
)
def test_what_the_model_server_says_is_mapped_and_kept_to_the_log(
    faulty: FaultyClient, code: str, message: str, slug: str
) -> None:
    faulty.server.behaviour = failing(grpc.StatusCode[code], message)
    grown = faulty.growth()
    large = [faulty.post("/generate", json={"count": 300}, headers={"Accept": accept}) for accept in FORMATS]
    for response in (*faulty.on_each_image_route(), *large):
        assert_problem(response, slug)
        assert message not in response.text
    wait_until(lambda: message in faulty.process.log)
    assert grown("upstream_errors_total", model=GENERATOR, code=code) == 8


def test_all_batches_of_a_request_share_its_time(faulty: FaultyClient) -> None:
    faulty.server.behaviour = delayed(0.4)
    before = faulty.server.calls
    response = faulty.post("/generate", json={"count": 4096}, headers={TIMEOUT_HEADER: "1"})
    assert_problem(response, "timeout")
    assert faulty.server.calls - before < 4096 / SLICE_ROWS


@pytest.mark.parametrize("accept", ["application/zip", "application/x-npy"])
def test_a_stream_that_cannot_go_on_breaks_off_where_the_client_sees_it(faulty: FaultyClient, accept: str) -> None:
    before = len(faulty.process.log)
    calls = faulty.server.calls

    def withdrawn_meanwhile(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if faulty.server.calls > calls + 4:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        return honest(request, context)

    faulty.server.behaviour = withdrawn_meanwhile
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        faulty.post("/generate", json={"count": 2000}, headers={"Accept": accept})
    wait_until(lambda: "POST /generate broke off: generator" in faulty.process.log[before:])
    assert "Traceback" not in faulty.process.log[before:]


def test_a_model_server_that_comes_back_is_used_again_without_a_restart(sockets: Path) -> None:
    address = f"unix:{sockets}/comes-and-goes.sock"
    with serving(address) as http:
        assert http.get("/healthz/live").status_code == 200
        assert_problem(http.get("/healthz/ready"), "not-ready", *MODELS)
        assert_problem(http.get("/models"), "model-server-unreachable")
        with MisbehavingServer(address):
            wait_until(lambda: http.get("/healthz/ready").status_code == 200)
            assert http.get("/digits/1.png").status_code == 200
        assert_problem(http.get("/digits/1.png"), "model-server-unreachable")
        with MisbehavingServer(address):
            wait_until(lambda: http.get("/digits/1.png").status_code == 200)


SECRET = "secret-/srv/models-10.0.0.7"

SABOTAGED = f"""
import sys
import api.main, api.oip.routes, api.routes.status
from api.formats import images, streams
from api.http.current_request import current

class SecretError(Exception):
    pass

def sabotage(module, name, part):
    whole = getattr(module, name)

    def failing(*args, **kwargs):
        under_way = current.get(None)
        if under_way and under_way.request_id == part:
            raise SecretError("{SECRET}")
        return whole(*args, **kwargs)

    setattr(module, name, failing)

sabotage(images, "png", "digits")
sabotage(api.routes.status, "generate_latest", "metrics")
sabotage(api.oip.routes, "write_answer", "inference")
sabotage(streams.ZipStream, "add", "zip")
sys.exit(api.main.main())
"""
"""A gateway with faults: a part of it fails for the requests that have its name as their id."""


@pytest.fixture(scope="module")
def sabotaged(model_server: str) -> Iterator[GatewayClient]:
    with serving(model_server, ("-c", SABOTAGED), log_format="json") as client:
        yield client


@pytest.mark.parametrize(
    ("part", "method", "path", "body"),
    [
        ("digits", "POST", "/generate", {"seeds": [7]}),
        ("metrics", "GET", "/metrics", None),
        ("inference", "POST", "/v2/models/generator/infer", noise_input()),
    ],
)
def test_an_exception_is_in_one_line_of_the_log(
    sabotaged: GatewayClient, part: str, method: str, path: str, body: Any
) -> None:
    assert sabotaged.request(method, path, json=body).status_code == 200
    before = sabotaged.process.log.count(SECRET)
    answer = sabotaged.request(method, path, json=body, headers={"X-Request-ID": part})
    assert_problem(answer, "internal-error")
    assert answer.headers["connection"] == "close"
    for text in (answer.text, str(answer.headers)):
        assert SECRET not in text
        assert "SecretError" not in text
    wait_until(lambda: sabotaged.process.log.count(SECRET) > before)
    *_, line = (line for line in sabotaged.process.log.splitlines() if SECRET in line)
    assert "SecretError: " in json.loads(line)["exception"]


def test_a_stream_that_fails_breaks_off(sabotaged: GatewayClient) -> None:
    headers = {"Accept": "application/zip", "X-Request-ID": "zip"}
    before = sabotaged.process.log.count(SECRET)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # after the header, or before it is sent
        sabotaged.post("/generate", json={"count": 10}, headers=headers)
    wait_until(lambda: sabotaged.process.log.count(SECRET) > before)
