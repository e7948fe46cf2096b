"""GET /story: what was exported with the generator comes out of the gateway, byte for byte."""

import grpc
import httpx
import numpy as np
import pytest

from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from tests.support import indexed_models
from tests.support.gateways import FaultyClient
from tests.support.misbehaving import answer, failing
from tests.support.problems import assert_problem


def test_the_story_is_the_one_that_was_exported(small_http: httpx.Client) -> None:
    for query in ("", "?version=1"):
        response = small_http.get(f"/story{query}")
        assert response.status_code == 200, response.text
        assert response.content == indexed_models.STORY
        assert response.headers["content-type"] == "application/json"
        assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "1")
        again = small_http.get(f"/story{query}", headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_a_version_without_a_story_says_so(faulty: FaultyClient) -> None:
    words = 'Serving signature key "story" not found.'
    faulty.server.behaviour = failing(grpc.StatusCode.FAILED_PRECONDITION, words)
    assert_problem(faulty.get("/story"), "no-story")


@pytest.mark.parametrize("length", [0, -1, 2**40])
def test_a_length_that_cannot_be_is_the_contract_broken(faulty: FaultyClient, length: int) -> None:
    pages, lengths = np.zeros((1, STORY_PAGE), np.uint8), np.array([length])
    faulty.server.behaviour = lambda request, context: answer(request, {STORY: pages, STORY_BYTES: lengths})
    assert_problem(faulty.get("/story"), "broken-contract")
