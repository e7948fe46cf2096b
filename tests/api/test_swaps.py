"""Models that are swapped in the middle of an answer, and the seed indexes of versions that come, go and fail."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from tests.api.test_generate import pixels_in
from tests.conftest import faulty_gateway_fixture
from tests.support.gateways import DIGIT, FaultyClient, assert_problem, noise_input
from tests.support.misbehaving import answer
from tests.support.pictures import base64_of

numbers = itertools.count(1)
"""Of versions: the gateway lives through all tests, and keeps the indexes that it knows."""


class Versions:
    """Generators with indexes: even versions make sevens of even seeds, odd ones of odd seeds, and zeros of the rest.

    ``asked`` are the calls for the generator, by signature and version.
    """

    def __init__(self, http: FaultyClient) -> None:
        self.http, self.server = http, http.server
        self.indexed = 1000
        self.index_seconds = 0.0
        self.changes: dict[str, NDArray[Any] | None] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.publish(*MODELS)
        self.server.behaviour = self

    def publish(self, *models: str) -> None:
        """Withdraws the version of each model, and publishes one that the gateway has not met."""
        version = next(numbers)
        for model in models:
            self.server.statuses[model] = [(version, ModelVersionStatus.AVAILABLE)]

    def newest(self, model: str = GENERATOR) -> int:
        ((version, _),) = self.server.statuses[model]
        return version

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        if spec.name == GENERATOR:
            self.asked.append((spec.signature_name, spec.version.value if spec.HasField("version") else None))
        version = self.server.version_of(spec, context)
        if spec.signature_name == SIGNATURE:
            return answer(request, version=version)
        time.sleep(self.index_seconds)
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

    def sevens(self, count: int = 5, **body: Any) -> httpx.Response:
        return self.http.post("/generate", json={"count": count, "digit": 7} | body)

    def assert_sevens(self, response: httpx.Response) -> None:
        """The newest version has made the whole answer, of seeds that it makes sevens of."""
        assert response.status_code == 200, response.text
        document = response.json()
        assert document["version"] == self.newest()
        assert {image["digit"] for image in document["images"]} == {7}
        assert {image["seed"] % 2 for image in document["images"]} == {self.newest() % 2}

    def swap(self, model: str, times: int = 1) -> None:
        """Withdraws the version of ``model`` after each of its first ``times`` answers, and publishes the next one.

        The calls of a dataset's first block name no version. All logits in it are below the floor in DATASET.
        """
        lock, left = threading.Lock(), iter(range(times))

        def swapping(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
            spec = request.model_spec
            with lock:
                if spec.name == DISCRIMINATOR:
                    rows = request.inputs[contract.IMAGES].tensor_shape.dim[0].size
                    logits = np.full(rows, 1 if spec.HasField("version") else -1, np.float32)
                    found = answer(request, {contract.LOGITS: logits}, version=self.server.version_of(spec, context))
                else:
                    found = self(request, context)
                if spec.name == model and spec.signature_name == SIGNATURE and next(left, None) is not None:
                    self.publish(model)
            return found

        self.server.behaviour = swapping


http = faulty_gateway_fixture(max_score_images=1000)


@pytest.fixture
def versions(http: FaultyClient) -> Versions:
    return Versions(http)


NPY = {"Accept": "application/x-npy"}
SCORED = {"images": [base64_of(DIGIT)] * 300, "labels": True}
DATASET = {"count": 1000, "confidence_floor": 0, "logit_floor": 0, "balance": "natural"}
"""Nothing is sent yet when the second block is asked for."""


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/generate", {"count": 300}, GENERATOR),
        ("/generate", {"count": 300, "labels": True}, GENERATOR),
        ("/interpolate", {"seeds": [1, 2], "steps": 300}, GENERATOR),
        ("/dataset", DATASET, GENERATOR),
        ("/dataset", DATASET, CLASSIFIER),
        ("/dataset", DATASET, DISCRIMINATOR),
        ("/score", SCORED, DISCRIMINATOR),
        ("/score", SCORED, CLASSIFIER),
        ("/v2/models/generator/infer", noise_input(300), GENERATOR),
    ],
)
def test_the_successor_makes_the_whole_answer(versions: Versions, path: str, body: dict[str, Any], model: str) -> None:
    versions.swap(model)
    response = versions.http.post(path, json=body, headers=NPY if path == "/dataset" else {})
    assert response.status_code == 200, response.text
    if model != CLASSIFIER and path != "/score":
        name = f"x-{model if model == DISCRIMINATOR else 'model'}-version"
        assert int(response.headers[name]) == versions.newest(model)


def test_a_model_that_is_swapped_again_and_again_is_unavailable(versions: Versions) -> None:
    versions.swap(GENERATOR, times=9)
    assert_problem(versions.http.post("/generate", json={"count": 300}), "model-not-served")


def test_a_version_that_the_request_names_has_no_successor(versions: Versions) -> None:
    versions.swap(GENERATOR)
    body = {"count": 300, "version": versions.newest()}
    assert_problem(versions.http.post("/generate", json=body), "version-not-found")


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_if_the_version_is_withdrawn_its_successor_chooses_other_seeds(versions: Versions, accept: str) -> None:
    """Withdrawn between the choice of the seeds and the call for their digits."""
    old = versions.newest()
    versions.assert_sevens(versions.sevens())

    def withdrawing(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SIGNATURE and versions.newest() == old:
            versions.publish(GENERATOR)
        return versions(request, context)

    versions.server.behaviour = withdrawing
    response = versions.http.post("/generate", json={"count": 5, "digit": 7}, headers={"Accept": accept})
    new = versions.newest()
    assert (old, response.headers["x-model-version"]) == (new - 1, str(new))
    assert {int(seed) % 2 for seed in response.headers["x-seeds"].split(",")} == {new % 2}


def test_many_requests_at_once_and_all_that_follow_share_one_fetch(versions: Versions) -> None:
    versions.index_seconds = 0.5
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(lambda _: versions.sevens(), range(8)):
            versions.assert_sevens(response)
    versions.assert_sevens(versions.sevens(300, curated=True, version=versions.newest()))
    assert versions.fetches() == 1


def test_a_slow_index_is_504_after_the_requests_time(versions: Versions) -> None:
    """All calls for the index share the request's time, so only two of them begin. The failure is not kept."""
    versions.index_seconds = 1.8
    response = versions.http.post("/generate", json={"count": 5, "digit": 7}, headers={TIMEOUT_HEADER: "2"})
    assert_problem(response, "timeout")
    assert 1 <= [signature for signature, _ in versions.asked].count(SEED_INDEX) <= 2
    versions.index_seconds = 0
    versions.assert_sevens(versions.sevens())


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
def test_an_index_that_breaks_the_contract_is_502(versions: Versions, changes: dict[str, NDArray[Any] | None]) -> None:
    versions.changes = changes
    assert_problem(versions.sevens(version=versions.newest()), "broken-contract")


def test_an_index_of_more_pages_than_a_call_takes_comes_in_several(versions: Versions) -> None:
    versions.indexed = 20 * INDEX_PAGE + 6
    versions.assert_sevens(versions.sevens())  # the newest version is looked up once a second
    body = {"count": 10 * INDEX_PAGE + 3, "digit": 7}
    response = versions.http.post("/generate", json=body, headers=NPY)
    assert response.status_code == 200
    assert len(pixels_in(response)) == 10 * INDEX_PAGE + 3
    assert versions.fetches() == 2
    more = versions.http.post("/generate", json=body | {"count": body["count"] + 1}, headers=NPY)
    assert_problem(more, "invalid-request", "/count")


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_without_the_classifier_labels_are_503_and_digits_of_the_index_are_not(versions: Versions, accept: str) -> None:
    versions.server.statuses[CLASSIFIER] = []
    post = partial(versions.http.post, "/generate", headers={"Accept": accept})
    response = post(json={"seeds": [1000], "labels": True})
    assert CLASSIFIER in assert_problem(response, "model-not-served")["detail"]
    for body in ({"seeds": [999], "labels": True}, {"count": 3, "digit": 7}):
        assert post(json=body).status_code == 200
