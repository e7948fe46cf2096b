"""The Open Inference Protocol: Triton's own client runs unchanged, and every failure is reported in both forms."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from api.oip.messages import DATATYPES, HEADER_LENGTH
from serving.apis import ModelVersionStatus
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, MODELS, NOISE, PROBABILITIES
from serving.noise import noise_from_seeds
from tests.api.test_generate import ask, pixels_in
from tests.support.gateways import FaultyClient, GatewayClient, assert_problem, noise_input
from tests.support.pictures import base64_of, saved
from tests.support.pretrained import VERSIONS

SEEDS = [7, 8, 2**40]


@pytest.fixture(scope="module")
def triton(http: GatewayClient) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{http.base_url.port}", network_timeout=60, connection_timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def digits(http: GatewayClient) -> NDArray[np.uint8]:
    """What /generate makes of SEEDS: uint8 [3, 28, 28, 1]."""
    return pixels_in(ask(http, seeds=SEEDS))[..., np.newaxis]


def tensor(name: str, array: NDArray[Any], *, binary: bool) -> InferInput:
    found = InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
    return found.set_data_from_numpy(array, binary_data=binary)


def test_the_client_lists_and_checks_the_models(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    server = triton.get_server_metadata()
    assert server["name"] == "digitgan"
    assert server["extensions"] == ["binary_tensor_data"]
    assert triton.get_model_repository_index() == [
        {"name": model, "version": str(VERSIONS[model]), "state": "READY", "reason": ""} for model in MODELS
    ]
    for model in MODELS:
        assert triton.is_model_ready(model)
        version = str(VERSIONS[model])
        assert triton.is_model_ready(model, version)
        assert not triton.is_model_ready(model, "99")
        assert triton.get_model_metadata(model) == triton.get_model_metadata(model, version)
    assert not triton.is_model_ready("absent")
    assert triton.get_model_metadata(GENERATOR) == {
        "name": "generator",
        "versions": ["3"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "noise", "datatype": "FP32", "shape": [-1, 100]}],
        "outputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}],
    }


@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("binary_in", [False, True])
def test_the_client_runs_all_three_models(
    triton: InferenceServerClient, digits: NDArray[np.uint8], http: GatewayClient, binary_in: bool, binary_out: bool
) -> None:
    def infer(model: str, name: str, array: NDArray[Any], *outputs: str) -> Any:
        wanted = [InferRequestedOutput(output, binary_data=binary_out) for output in outputs]
        return triton.infer(model, [tensor(name, array, binary=binary_in)], outputs=wanted, request_id="a b")

    images = infer(GENERATOR, NOISE, noise_from_seeds(SEEDS), IMAGES)
    response = images.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("generator", "3", "a b")
    np.testing.assert_array_equal(images.as_numpy(IMAGES), digits)

    scores = infer(DISCRIMINATOR, IMAGES, digits, PROBABILITIES, LOGITS)
    assert [output["name"] for output in scores.get_response()["outputs"]] == [PROBABILITIES, LOGITS]
    files = [base64_of(saved(digit[..., 0])) for digit in digits]
    for output, field in ((PROBABILITIES, "probability"), (LOGITS, "logit")):
        scored = [score[field] for score in http.post("/score", json={"images": files}).json()["scores"]]
        np.testing.assert_allclose(scores.as_numpy(output), np.array(scored, np.float32), rtol=1e-5)

    read = infer(CLASSIFIER, IMAGES, digits, PROBABILITIES).as_numpy(PROBABILITIES)
    labelled = http.post("/generate", json={"seeds": SEEDS, "labels": True}).json()["images"]
    assert read.argmax(axis=1).tolist() == [one["digit"] for one in labelled]


def test_outputs_are_bytes_or_json_as_the_client_says(triton: InferenceServerClient, digits: NDArray[np.uint8]) -> None:
    """All of them as bytes, unless it names some."""
    result = triton.infer(DISCRIMINATOR, [tensor(IMAGES, digits, binary=True)], "4")
    assert [output["parameters"] for output in result.get_response()["outputs"]] == [{"binary_data_size": 12}] * 2
    wanted = [InferRequestedOutput(LOGITS, binary_data=False), InferRequestedOutput(PROBABILITIES, binary_data=True)]
    result = triton.infer(DISCRIMINATOR, [tensor(IMAGES, digits, binary=True)], outputs=wanted)
    logits, probabilities = result.get_response()["outputs"]
    assert len(logits["data"]) == 3
    assert probabilities["parameters"]["binary_data_size"] == 12
    assert result.as_numpy(PROBABILITIES).shape == result.as_numpy(LOGITS).shape == (3,)


def test_more_rows_than_a_batch_are_one_answer(triton: InferenceServerClient) -> None:
    noise = noise_from_seeds(range(300))
    result = triton.infer(GENERATOR, [tensor(NOISE, noise, binary=True)])
    alone = triton.infer(GENERATOR, [tensor(NOISE, noise[-1:], binary=True)])
    assert result.as_numpy(IMAGES).shape == (300, 28, 28, 1)
    np.testing.assert_array_equal(result.as_numpy(IMAGES)[-1:], alone.as_numpy(IMAGES))


def test_a_raw_body_is_the_input(http: GatewayClient, digits: NDArray[np.uint8]) -> None:
    response = http.post(
        "/v2/models/generator/infer", content=noise_from_seeds(SEEDS).tobytes(), headers={HEADER_LENGTH: "0"}
    )
    assert response.status_code == 200
    assert response.content[int(response.headers[HEADER_LENGTH]) :] == digits.tobytes()
    assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "3")


def test_the_client_is_told_what_is_wrong(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="/inputs/0/datatype: should be UINT8") as caught:
        triton.infer(DISCRIMINATOR, [tensor(IMAGES, np.zeros((1, 28, 28, 1), np.float32), binary=True)])
    assert caught.value.status() == "422"
    noise = [tensor(NOISE, np.zeros((1, 100), np.float32), binary=False)]
    with pytest.raises(InferenceServerException, match="the models are generator, discriminator, classifier"):
        triton.infer("absent", noise)
    with pytest.raises(InferenceServerException, match="generator has no version 99"):
        triton.infer(GENERATOR, noise, "99")


def test_optional_and_unknown_members(http: GatewayClient) -> None:
    """MLServer's answers have nulls, and Seldon Core's pipelines pass them on as the next request."""
    expected = http.post("/v2/models/generator/infer", json=noise_input(2)).json()
    assert len(expected["outputs"][0]["data"]) == 2 * 784
    assert "id" not in expected
    bodies: list[dict[str, Any]] = [
        {"id": None, "parameters": None, "outputs": None} | noise_input(2, parameters=None),
        {"parameters": {"binary_data_output": None}} | noise_input(2),
        {"outputs": [{"name": "images", "parameters": None}]} | noise_input(2),
        {"outputs": [{"name": "images", "parameters": {"binary_data": None, "classification": None}}]} | noise_input(2),
        {"model_name": "generator"} | noise_input(2, data=[[0.0] * 100] * 2, parameters={"content_type": "np"}),
    ]
    for body in bodies:
        answer = http.post("/v2/models/generator/infer", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == expected


def test_other_failures_below_v2_are_told_in_both_ways(http: GatewayClient) -> None:
    assert_problem(http.get("/v2/nothing"), "not-found")
    assert_problem(http.get("/v2/models/generator/infer"), "method-not-allowed")
    assert_problem(http.get("/v2/models/generator/versions/one"), "invalid-request", "version")
    assert_problem(http.post("/v2/models/generator/infer", content=b"{"), "malformed-request")
    for length in ("-1", "1e3", "999999", "x", "9" * 5000):
        response = http.post("/v2/models/generator/infer", content=b"{}", headers={HEADER_LENGTH: length})
        assert_problem(response, "malformed-request")
    assert_problem(http.post("/v2/models/generator/infer", content=bytes(9 * 2**20)), "body-too-large")
    packed = http.post("/v2/models/generator/infer", content=b"", headers={"Content-Encoding": "gzip"})
    assert_problem(packed, "unsupported-media-type")
    for path in ("/v2/models/absent", "/v2/models/absent/ready"):
        assert_problem(http.get(path), "model-not-found")


def test_a_version_that_failed_is_not_ready_and_says_why(faulty: FaultyClient) -> None:
    faulty.server.statuses[GENERATOR] = [(2, ModelVersionStatus.END), (1, ModelVersionStatus.AVAILABLE)]
    faulty.server.errors[2] = (15, "no graph")
    assert faulty.get("/v2/models/generator/versions/1/ready").json() == {"name": "generator", "ready": True}
    assert_problem(faulty.get("/v2/models/generator/versions/2/ready"), "not-ready", "generator")
    assert faulty.get("/v2/models/generator").json()["versions"] == ["1"]
    listed = faulty.post("/v2/repository/index", json={}).json()
    assert listed[0] == {"name": "generator", "version": "2", "state": "UNAVAILABLE", "reason": "DATA_LOSS: no graph"}
    faulty.server.statuses[GENERATOR] = [(2, ModelVersionStatus.END)]
    assert_problem(faulty.get("/v2/health/ready"), "not-ready", "generator")
    assert_problem(faulty.get("/v2/models/generator/ready"), "not-ready", "generator")
    assert faulty.get("/v2/health/live").json() == {"live": True}
    faulty.server.reset()
    assert faulty.get("/v2/health/ready").json() == {"live": True, "ready": True}
