"""GET /story: what was exported with the generator comes out of the gateway, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from serving.apis import PredictRequest
from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from tests.api import indexed_models, processes
from tests.api.misbehaving import MisbehavingServer, answer
from tests.api.problem import assert_problem

LONG = bytes(np.random.default_rng(0).integers(32, 127, 3 * STORY_PAGE + 17, np.uint8))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, sockets: Path, program: str) -> Iterator[httpx.Client]:
    """A client of a gateway whose generator has a story in version 2, and none in version 3."""
    models = tmp_path_factory.mktemp("told")
    indexed_models.save_generator(models / "generator" / "2", story=LONG)
    with (
        processes.model_server(models, sockets / "told.sock", program),
        processes.gateway(f"unix:{sockets}/told.sock") as process,
        httpx.Client(base_url=processes.url_of(process), timeout=60) as client,
    ):
        yield client


def test_the_story_is_the_one_that_was_exported(told: httpx.Client) -> None:
    for query in ("", "?version=2"):
        response = told.get(f"/story{query}")
        assert response.status_code == 200, response.text
        assert response.content == LONG
        assert response.headers["content-type"] == "application/json"
        assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "2")


def test_it_is_cacheable(told: httpx.Client) -> None:
    newest, named = told.get("/story"), told.get("/story?version=2")
    assert newest.headers["cache-control"] == "public, no-cache"
    assert "immutable" in named.headers["cache-control"]
    assert newest.headers["etag"] == named.headers["etag"]
    again = told.get("/story", headers={"If-None-Match": newest.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert told.head("/story").headers["etag"] == newest.headers["etag"]


def test_a_version_that_does_not_exist_and_a_wrong_one(told: httpx.Client) -> None:
    assert_problem(told.get("/story?version=9"), "version-not-found")
    assert_problem(told.get("/story?version=two"), "invalid-request", "version")


def test_a_version_without_a_story_says_so(faulty_http: httpx.Client, faulty_server: MisbehavingServer) -> None:
    def without(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "story" not found.')
        raise AssertionError

    faulty_server.behaviour = without
    assert_problem(faulty_http.get("/story"), "no-story")


@pytest.mark.parametrize("length", [0, -1, 2**40])
def test_a_length_that_cannot_be_is_the_contract_broken(
    faulty_http: httpx.Client, faulty_server: MisbehavingServer, length: int
) -> None:
    def endless(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        pages = np.zeros((1, STORY_PAGE), np.uint8)
        return answer(request, {STORY: pages, STORY_BYTES: np.array([length], np.int64)})

    faulty_server.behaviour = endless
    assert_problem(faulty_http.get("/story"), "broken-contract")
