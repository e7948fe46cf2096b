"""What caches may keep, GET /digits/{seed}.png and GET /story: with HEAD, ETags and conditional requests."""

import grpc
import httpx
import numpy as np
import pytest

from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from tests.support import saved_models
from tests.support.gateways import FaultyClient, assert_problem
from tests.support.misbehaving import answer, failing


def test_it_is_the_digit_of_the_seed(http: httpx.Client) -> None:
    image = http.get("/digits/7.png")
    assert image.status_code == 200
    assert image.headers["content-type"] == "image/png"
    assert (image.headers["x-model"], image.headers["x-model-version"]) == ("generator", "3")
    sheet = http.post("/generate", json={"seeds": [7]}, headers={"Accept": "image/png"})
    assert image.content == sheet.content


def test_an_image_of_a_named_version_is_kept_by_caches(http: httpx.Client) -> None:
    assert http.get("/digits/7.png").headers["cache-control"] == "public, no-cache"
    named = http.get("/digits/7.png?version=3&scale=2")
    assert named.headers["cache-control"] == "public, max-age=31536000, immutable"
    other = http.get("/digits/7.png", headers={"If-None-Match": named.headers["etag"]})
    assert other.status_code == 200, "another image has another tag"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_known_image_is_not_sent_again(http: httpx.Client, form: str) -> None:
    etag = http.get("/digits/7.png").headers["etag"]
    for method in ("GET", "HEAD"):
        response = http.request(method, "/digits/7.png", headers={"If-None-Match": form.format(etag)})
        assert response.status_code == 304
        assert response.content == b""
        assert response.headers["etag"] == etag
        assert response.headers["cache-control"] == "public, no-cache"


SEEDS = ["-1", "9007199254740992", "1e3", "7.0", "007", "+7", "%207", "1_0", "x", "٣", "9" * 400]


@pytest.mark.parametrize(
    ("image", "places"),
    [
        *((f"{seed}.png", ["seed"]) for seed in SEEDS),
        *((f"7.png?scale={scale}", ["scale"]) for scale in ("0", "33", "-1", "1.5", "x", "", "02")),
        *((f"7.png?version={version}", ["version"]) for version in ("-1", "x", "9007199254740992")),
        ("x.png?scale=0&version=x", ["seed", "scale", "version"]),
    ],
)
def test_a_wrong_seed_scale_or_version_is_named(http: httpx.Client, image: str, places: list[str]) -> None:
    assert_problem(http.get(f"/digits/{image}"), "invalid-request", *places)


def test_the_story_is_the_one_that_was_exported(small_http: httpx.Client) -> None:
    for query in ("", "?version=1"):
        response = small_http.get(f"/story{query}")
        assert response.status_code == 200, response.text
        assert response.content == saved_models.STORY
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
