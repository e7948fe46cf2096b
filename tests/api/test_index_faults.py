"""The seed index when versions come and go, calls fail, and many ask at once."""

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

from api.digits.seed_index import MAX_SEEDS
from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import (
    CLASSIFIER,
    CONFIDENCES,
    CURATED,
    DIGITS,
    GENERATOR,
    INDEX_PAGE,
    INDEXED_SEEDS,
    NOT_INDEXED,
    PAGES,
    SEED_INDEX,
    SIGNATURE,
)
from serving.tf_serving.tensors import to_array
from tests.support import gateways
from tests.support.gateways import GatewayClient
from tests.support.misbehaving import MisbehavingServer, answer
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

TIMEOUT_S = 3.0

numbers = itertools.count(1)
"""Versions that the gateway, which lives through all tests, hasn't met yet."""


class Versions:
    """Generators with indexes: even versions make sevens of even seeds, odd ones of odd seeds, and zeros of the rest.

    Those in ``available`` answer, the last of them is the newest. ``asked`` are the calls, by signature and version.
    """

    def __init__(self, server: MisbehavingServer, *available: int, indexed: int = 1000) -> None:
        self.server = server
        self.indexed = dict.fromkeys(available, indexed)
        self.changes: dict[str, NDArray[Any] | None] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.publish(*available)
        server.behaviour = self

    def publish(self, *available: int) -> None:
        self.available = list(available)
        self.server.statuses[GENERATOR] = [(version, ModelVersionStatus.AVAILABLE) for version in available]

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        if spec.name != GENERATOR:
            return answer(request)
        version = spec.version.value if spec.HasField("version") else None
        self.asked.append((spec.signature_name, version))
        if version is None:
            version = self.available[-1]
        if version not in self.available:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        if spec.signature_name == SIGNATURE:
            return answer(request, version=version)
        pages = np.clip(to_array(request.inputs[PAGES]), 0, max(0, self.indexed[version] - 1) // INDEX_PAGE)
        seeds = pages[:, np.newaxis] * INDEX_PAGE + np.arange(INDEX_PAGE)
        digits = np.where(seeds % 2 == version % 2, 7, 0)
        found: dict[str, NDArray[Any] | None] = {
            DIGITS: np.where(seeds < self.indexed[version], digits, NOT_INDEXED).astype(np.uint8),
            CONFIDENCES: np.ones(seeds.shape, np.float32),
            CURATED: np.ones(seeds.shape, np.uint8),
            INDEXED_SEEDS: np.full(len(pages), self.indexed[version], np.int64),
        }
        return answer(request, found | self.changes, version=version)

    def calls(self) -> list[tuple[str, int | None]]:
        """The calls without those that ask, once a second, which version is the newest."""
        return [call for call in self.asked if call != (SEED_INDEX, None)]

    def fetches(self) -> int:
        """How many calls wanted the index of a version."""
        return sum(signature == SEED_INDEX and version is not None for signature, version in self.asked)


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[GatewayClient]:
    with gateways.serving(server.target, request_timeout_s=TIMEOUT_S) as client:
        yield client


@pytest.fixture(autouse=True)
def _looks_again(server: MisbehavingServer, http: GatewayClient) -> None:
    """Before each test the gateway learns that all versions it knows are gone."""
    version = next(numbers)
    Versions(server, version, indexed=10)
    wait_until(lambda: sevens(http).headers["x-model-version"] == str(version))


@pytest.fixture
def versions(server: MisbehavingServer) -> Versions:
    """A version that the gateway has not met."""
    return Versions(server, next(numbers))


def sevens(http: GatewayClient, count: int = 5, **body: Any) -> httpx.Response:
    return http.post("/generate", json={"count": count, "digit": 7} | body)


def seeds_of(response: httpx.Response, version: int) -> list[int]:
    """The seeds in an answer of ``version``, all of which it makes sevens of."""
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["version"] == version
    assert {image["digit"] for image in document["images"]} == {7}
    seeds = [image["seed"] for image in document["images"]]
    assert {seed % 2 for seed in seeds} == {version % 2}
    return seeds


def test_once_the_index_is_there_a_digit_takes_the_calls_of_any_request(
    http: GatewayClient, versions: Versions
) -> None:
    version = versions.available[-1]
    seeds_of(sevens(http), version)
    for body in ({}, {"version": version}):
        versions.asked.clear()
        seeds_of(sevens(http, **body), version)
        assert versions.calls() == [(SIGNATURE, version)]
    seeds_of(sevens(http, 300, curated=True), version)
    assert set(versions.calls()) == {(SIGNATURE, version)}  # as many as it takes


def test_many_requests_at_once_share_one_fetch(
    server: MisbehavingServer, http: GatewayClient, versions: Versions
) -> None:
    version = versions.available[-1]
    waiting = threading.Event()

    def slowly(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SEED_INDEX and request.model_spec.HasField("version"):
            waiting.wait(TIMEOUT_S / 3)
        return versions(request, context)

    server.behaviour = slowly
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(lambda _: sevens(http), range(8)):
            seeds_of(response, version)
    assert versions.fetches() == 1


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_if_the_version_is_withdrawn_its_successor_starts_again(
    server: MisbehavingServer, http: GatewayClient, accept: str
) -> None:
    """Withdrawn between the choice of the seeds and the call for their digits."""
    old, new = next(numbers), next(numbers)
    versions = Versions(server, old, new)
    versions.publish(old)

    def withdrawing(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        if spec.signature_name == SIGNATURE and spec.HasField("version"):
            versions.publish(new)
        return versions(request, context)

    server.behaviour = withdrawing
    response = http.post("/generate", json={"count": 5, "digit": 7}, headers={"Accept": accept})
    assert response.headers["x-model-version"] == str(new)
    assert {int(seed) % 2 for seed in response.headers["x-seeds"].split(",")} == {new % 2}


def test_a_slow_index_is_504_after_the_requests_time(
    server: MisbehavingServer, http: GatewayClient, versions: Versions
) -> None:
    """All calls for the index share the request's time, so only two of them begin. The failure is not kept."""
    version = versions.available[-1]
    gone = threading.Event()
    calls = []

    def slow(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.signature_name == SEED_INDEX:
            calls.append(request)
            gone.wait(TIMEOUT_S * 0.9)
        return versions(request, context)

    server.behaviour = slow
    response = sevens(http)
    assert_problem(response, "timeout")
    assert 1 <= len(calls) <= 2
    gone.set()
    server.behaviour = versions
    seeds_of(sevens(http), version)


@pytest.mark.parametrize(
    "changes",
    [
        {DIGITS: np.full((16, INDEX_PAGE), 10, np.uint8)},
        {DIGITS: np.zeros((16, 7), np.uint8)},
        {CONFIDENCES: np.full((16, INDEX_PAGE), np.nan, np.float32)},
        {INDEXED_SEEDS: np.full(16, -1, np.int64)},
        {INDEXED_SEEDS: np.full(16, MAX_SEEDS + 1, np.int64)},
        {CURATED: None},
    ],
    ids=["digit", "shape", "not finite", "negative length", "endless", "missing"],
)
def test_an_index_that_breaks_the_contract_is_502(
    server: MisbehavingServer, http: GatewayClient, changes: dict[str, NDArray[Any] | None]
) -> None:
    version = next(numbers)
    Versions(server, version).changes = changes
    assert_problem(sevens(http, version=version), "broken-contract")


def test_an_index_of_more_pages_than_a_call_takes_comes_in_several(
    server: MisbehavingServer, http: GatewayClient
) -> None:
    version = next(numbers)
    versions = Versions(server, version, indexed=20 * INDEX_PAGE + 6)
    seeds_of(sevens(http), version)  # the newest version is looked up once a second
    body = {"count": 10 * INDEX_PAGE + 3, "digit": 7}
    response = http.post("/generate", json=body, headers={"Accept": "application/x-npy"})
    assert response.status_code == 200
    assert len(np.load(io.BytesIO(response.content))) == 10 * INDEX_PAGE + 3
    assert versions.fetches() == 2
    assert_problem(
        http.post("/generate", json=body | {"count": body["count"] + 1}, headers={"Accept": "application/x-npy"}),
        "invalid-request",
        "/count",
    )


@pytest.mark.parametrize("accept", ["application/json", "application/zip"])
def test_without_the_classifier_labels_are_503_and_digits_of_the_index_are_not(
    server: MisbehavingServer, http: GatewayClient, versions: Versions, accept: str
) -> None:
    def no_classifier(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if request.model_spec.name == CLASSIFIER:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        return versions(request, context)

    server.behaviour = no_classifier
    headers = {"Accept": accept}
    response = http.post("/generate", json={"seeds": [1000], "labels": True}, headers=headers)
    assert CLASSIFIER in assert_problem(response, "model-not-served")["detail"]
    for body in ({"seeds": [999], "labels": True}, {"count": 3, "digit": 7}):
        assert http.post("/generate", json=body, headers=headers).status_code == 200
