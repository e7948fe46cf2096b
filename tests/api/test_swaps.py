"""Models that are swapped in the middle of an answer, and the seed indexes of versions that come, go and fail."""

import base64
import io
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from api.digits.carried import MAX_SEEDS
from api.http.current_request import TIMEOUT_HEADER
from serving import contract
from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, INDEX_PAGE, MODELS, SEED_INDEX, SIGNATURE
from serving.tf_serving.tensors import to_array
from tests.api.test_wrong_input import png
from tests.support import gateways
from tests.support.gateways import GatewayClient, noise_input
from tests.support.misbehaving import MisbehavingServer, answer
from tests.support.problems import assert_problem

numbers = itertools.count(1)
"""Of versions: the gateway lives through all tests, and keeps the indexes that it knows."""


class Versions:
    """Generators with indexes: even versions make sevens of even seeds, odd ones of odd seeds, and zeros of the rest.

    ``asked`` are the calls for the generator, by signature and version.
    """

    def __init__(self, server: MisbehavingServer) -> None:
        self.server = server
        self.indexed = 1000
        self.changes: dict[str, NDArray[Any] | None] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.publish()
        server.behaviour = self

    def publish(self) -> None:
        """Withdraws the version of each model, and publishes one that the gateway has not met."""
        version = next(numbers)
        self.server.statuses = {model: [(version, ModelVersionStatus.AVAILABLE)] for model in MODELS}

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        if spec.name == GENERATOR:
            self.asked.append((spec.signature_name, spec.version.value if spec.HasField("version") else None))
        version = self.server.version_of(spec, context)
        if spec.signature_name == SIGNATURE:
            return answer(request, version=version)
        pages = np.clip(to_array(request.inputs[contract.PAGES]), 0, max(0, self.indexed - 1) // INDEX_PAGE)
        seeds = pages[:, np.newaxis] * INDEX_PAGE + np.arange(INDEX_PAGE)
        digits = np.where(seeds % 2 == version % 2, 7, 0)
        found: dict[str, NDArray[Any] | None] = {
            contract.DIGITS: np.where(seeds < self.indexed, digits, contract.NOT_INDEXED).astype(np.uint8),
            contract.CONFIDENCES: np.ones(seeds.shape, np.float32),
            contract.CURATED: np.ones(seeds.shape, np.uint8),
            contract.INDEXED_SEEDS: np.full(len(pages), self.indexed, np.int64),
        }
        return answer(request, found | self.changes, version=version)

    def fetches(self) -> int:
        """How many calls wanted the index of a version. Once a second one asks which version is the newest."""
        return sum(signature == SEED_INDEX and version is not None for signature, version in self.asked)


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[GatewayClient]:
    with gateways.serving(server.target, max_score_images=1000) as client:
        yield client


@pytest.fixture
def versions(server: MisbehavingServer) -> Versions:
    return Versions(server)


def sevens(http: GatewayClient, count: int = 5, **body: Any) -> httpx.Response:
    return http.post("/generate", json={"count": count, "digit": 7} | body)


def newest(server: MisbehavingServer) -> int:
    ((version, _),) = server.statuses[GENERATOR]
    return version


def seeds_of(response: httpx.Response, version: int) -> list[int]:
    """The seeds in an answer of ``version``, all of which it makes sevens of."""
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["version"] == version
    assert {image["digit"] for image in document["images"]} == {7}
    seeds = [image["seed"] for image in document["images"]]
    assert {seed % 2 for seed in seeds} == {version % 2}
    return seeds


def swap(versions: Versions, model: str, times: int = 1) -> None:
    """Withdraws the version of ``model`` after each of its first ``times`` answers, and publishes the next one.

    The calls of a dataset's first block name no version. All logits in it are below the floor in DATASET.
    """
    server, lock, left = versions.server, threading.Lock(), iter(range(times))

    def swapping(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        with lock:
            if spec.name == DISCRIMINATOR:
                rows = request.inputs[contract.IMAGES].tensor_shape.dim[0].size
                logits = np.full(rows, 1 if spec.HasField("version") else -1, np.float32)
                found = answer(request, {contract.LOGITS: logits}, version=server.version_of(spec, context))
            else:
                found = versions(request, context)
            if spec.name == model and spec.signature_name == SIGNATURE and next(left, None) is not None:
                server.statuses[model] = [(next(numbers), ModelVersionStatus.AVAILABLE)]
        return found

    server.behaviour = swapping


NPY = {"Accept": "application/x-npy"}
SCORED = {"images": [base64.b64encode(png()).decode()] * 300, "labels": True}
DATASET = {"count": 1000, "confidence_floor": 0, "logit_floor": 0, "balance": "natural"}
"""Nothing is sent yet when the second block is asked for."""


@pytest.mark.parametrize(
    ("path", "body", "headers", "model"),
    [
        ("/generate", {"count": 300}, {}, GENERATOR),
        ("/generate", {"count": 300, "labels": True}, {}, GENERATOR),
        ("/interpolate", {"seeds": [1, 2], "steps": 300}, {}, GENERATOR),
        ("/dataset", DATASET, NPY, GENERATOR),
        ("/dataset", DATASET, NPY, CLASSIFIER),
        ("/dataset", DATASET, NPY, DISCRIMINATOR),
        ("/score", SCORED, {}, DISCRIMINATOR),
        ("/score", SCORED, {}, CLASSIFIER),
        ("/v2/models/generator/infer", noise_input(300), {}, GENERATOR),
    ],
)
def test_the_successor_makes_the_whole_answer(
    http: GatewayClient, versions: Versions, path: str, body: dict[str, Any], headers: dict[str, str], model: str
) -> None:
    swap(versions, model)
    response = http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    if model != CLASSIFIER and path != "/score":
        name = f"x-{model if model == DISCRIMINATOR else 'model'}-version"
        assert int(response.headers[name]) == versions.server.statuses[model][0][0]


def test_a_model_that_is_swapped_again_and_again_is_unavailable(http: GatewayClient, versions: Versions) -> None:
    swap(versions, GENERATOR, times=9)
    assert_problem(http.post("/generate", json={"count": 300}), "model-not-served")


def test_a_version_that_the_request_names_has_no_successor(http: GatewayClient, versions: Versions) -> None:
    swap(versions, GENERATOR)
    body = {"count": 300, "version": newest(versions.server)}
    assert_problem(http.post("/generate", json=body), "version-not-found")


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_if_the_version_is_withdrawn_its_successor_chooses_other_seeds(
    server: MisbehavingServer, http: GatewayClient, versions: Versions, accept: str
) -> None:
    """Withdrawn between the choice of the seeds and the call for their digits."""
    old = newest(server)
    seeds_of(sevens(http), old)

    def withdrawing(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SIGNATURE and newest(server) == old:
            versions.publish()
        return versions(request, context)

    server.behaviour = withdrawing
    response = http.post("/generate", json={"count": 5, "digit": 7}, headers={"Accept": accept})
    new = newest(server)
    assert (old, response.headers["x-model-version"]) == (new - 1, str(new))
    assert {int(seed) % 2 for seed in response.headers["x-seeds"].split(",")} == {new % 2}


def test_many_requests_at_once_and_all_that_follow_share_one_fetch(
    server: MisbehavingServer, http: GatewayClient, versions: Versions
) -> None:
    def slowly(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SEED_INDEX and request.model_spec.HasField("version"):
            server.release.wait(1)
        return versions(request, context)

    server.behaviour = slowly
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(lambda _: sevens(http), range(8)):
            seeds_of(response, newest(server))
    seeds_of(sevens(http, 300, curated=True, version=newest(server)), newest(server))
    assert versions.fetches() == 1


def test_a_slow_index_is_504_after_the_requests_time(
    server: MisbehavingServer, http: GatewayClient, versions: Versions
) -> None:
    """All calls for the index share the request's time, so only two of them begin. The failure is not kept."""
    gone = threading.Event()
    calls = []

    def slow(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SEED_INDEX:
            calls.append(request)
            gone.wait(1.8)
        return versions(request, context)

    server.behaviour = slow
    response = http.post("/generate", json={"count": 5, "digit": 7}, headers={TIMEOUT_HEADER: "2"})
    assert_problem(response, "timeout")
    assert 1 <= len(calls) <= 2
    gone.set()
    server.behaviour = versions
    seeds_of(sevens(http), newest(server))


@pytest.mark.parametrize(
    "changes",
    [
        {contract.DIGITS: np.full((16, INDEX_PAGE), 10, np.uint8)},
        {contract.DIGITS: np.zeros((16, 7), np.uint8)},
        {contract.CONFIDENCES: np.full((16, INDEX_PAGE), np.nan, np.float32)},
        {contract.INDEXED_SEEDS: np.full(16, -1, np.int64)},
        {contract.INDEXED_SEEDS: np.full(16, MAX_SEEDS + 1, np.int64)},
        {contract.CURATED: None},
    ],
    ids=["digit", "shape", "not finite", "negative length", "endless", "missing"],
)
def test_an_index_that_breaks_the_contract_is_502(
    http: GatewayClient, versions: Versions, changes: dict[str, NDArray[Any] | None]
) -> None:
    versions.changes = changes
    assert_problem(sevens(http, version=newest(versions.server)), "broken-contract")


def test_an_index_of_more_pages_than_a_call_takes_comes_in_several(http: GatewayClient, versions: Versions) -> None:
    versions.indexed = 20 * INDEX_PAGE + 6
    seeds_of(sevens(http), newest(versions.server))  # the newest version is looked up once a second
    body = {"count": 10 * INDEX_PAGE + 3, "digit": 7}
    response = http.post("/generate", json=body, headers=NPY)
    assert response.status_code == 200
    assert len(np.load(io.BytesIO(response.content))) == 10 * INDEX_PAGE + 3
    assert versions.fetches() == 2
    more = http.post("/generate", json=body | {"count": body["count"] + 1}, headers=NPY)
    assert_problem(more, "invalid-request", "/count")


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_without_the_classifier_labels_are_503_and_digits_of_the_index_are_not(
    server: MisbehavingServer, http: GatewayClient, versions: Versions, accept: str
) -> None:
    server.statuses[CLASSIFIER] = []
    headers = {"Accept": accept}
    response = http.post("/generate", json={"seeds": [1000], "labels": True}, headers=headers)
    assert CLASSIFIER in assert_problem(response, "model-not-served")["detail"]
    for body in ({"seeds": [999], "labels": True}, {"count": 3, "digit": 7}):
        assert http.post("/generate", json=body, headers=headers).status_code == 200
