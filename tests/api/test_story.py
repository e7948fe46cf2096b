"""GET /story: what was exported with the generator comes out of the gateway, byte for byte."""

import grpc
import httpx
import numpy as np
import pytest

from serving.apis import PredictRequest
from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from tests.support import indexed_models
from tests.support.misbehaving import MisbehavingServer, answer
from tests.support.problems import assert_problem


def test_the_story_is_the_one_that_was_exported(small_http: httpx.Client) -> None:
    for query in ("", "?version=1"):
        response = small_http.get(f"/story{query}")
        assert response.status_code == 200, response.text
        assert response.content == indexed_models.TOLD
        assert response.headers["content-type"] == "application/json"
        assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "1")
        again = small_http.get(f"/story{query}", headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


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
