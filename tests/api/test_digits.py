"""GET /digits/{seed}.png: a cacheable image owes its clients HEAD, ETags and conditional requests."""

import httpx
import pytest

from tests.api.problem import assert_problem


def test_it_is_the_digit_of_the_seed(http: httpx.Client) -> None:
    image = http.get("/digits/7.png")
    assert image.status_code == 200
    assert image.headers["content-type"] == "image/png"
    assert (image.headers["x-model"], image.headers["x-model-version"]) == ("generator", "1")
    sheet = http.post("/generate", json={"seeds": [7]}, headers={"Accept": "image/png"})
    assert image.content == sheet.content


def test_scale_enlarges(http: httpx.Client) -> None:
    large = http.get("/digits/7.png", params={"scale": 10})
    asked = http.post("/generate", json={"seeds": [7], "scale": 10}, headers={"Accept": "image/png"})
    assert large.content == asked.content


def test_without_a_version_caches_ask_each_time(http: httpx.Client) -> None:
    """The newest version changes when one is published."""
    assert http.get("/digits/7.png").headers["cache-control"] == "public, no-cache"


def test_with_a_version_caches_keep_it(http: httpx.Client) -> None:
    response = http.get("/digits/7.png", params={"version": 1})
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_head_answers_like_get_without_the_image(http: httpx.Client) -> None:
    got, head = http.get("/digits/7.png"), http.head("/digits/7.png")
    assert head.status_code == 200
    assert head.content == b""
    ignored = {"date", "x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in ignored} == {
        name: value for name, value in got.headers.items() if name not in ignored
    }


def test_the_etag_is_strong_and_follows_the_content(http: httpx.Client) -> None:
    tags = {http.get(f"/digits/{seed}.png?scale={scale}").headers["etag"] for seed in (1, 2) for scale in (1, 2)}
    assert len(tags) == 4
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
    assert http.get("/digits/1.png").headers["etag"] in tags


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_known_image_is_not_sent_again(http: httpx.Client, form: str) -> None:
    etag = http.get("/digits/7.png").headers["etag"]
    for method in ("GET", "HEAD"):
        response = http.request(method, "/digits/7.png", headers={"If-None-Match": form.format(etag)})
        assert response.status_code == 304
        assert response.content == b""
        assert response.headers["etag"] == etag
        assert response.headers["cache-control"] == "public, no-cache"


def test_another_image_is_sent(http: httpx.Client) -> None:
    etag = http.get("/digits/8.png").headers["etag"]
    assert http.get("/digits/7.png", headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    "seed", ["-1", "9007199254740992", "1e3", "7.0", "007", "+7", "%207", "1_0", "x", "٣", "9" * 400]
)
def test_what_is_not_a_seed_is_refused_by_name(http: httpx.Client, seed: str) -> None:
    assert_problem(http.get(f"/digits/{seed}.png"), "invalid-request", "seed")


@pytest.mark.parametrize("scale", ["0", "33", "-1", "1.5", "x", "", "02"])
def test_what_is_not_a_scale_is_refused_by_name(http: httpx.Client, scale: str) -> None:
    assert_problem(http.get("/digits/7.png", params={"scale": scale}), "invalid-request", "scale")


@pytest.mark.parametrize("version", ["-1", "x", "9007199254740992"])
def test_what_is_not_a_version_is_refused_by_name(http: httpx.Client, version: str) -> None:
    assert_problem(http.get("/digits/7.png", params={"version": version}), "invalid-request", "version")


def test_everything_wrong_is_named_at_once(http: httpx.Client) -> None:
    response = http.get("/digits/x.png?scale=0&version=x")
    assert_problem(response, "invalid-request", "seed", "scale", "version")


def test_a_version_that_does_not_exist_is_not_found(http: httpx.Client) -> None:
    assert_problem(http.get("/digits/7.png?version=99"), "version-not-found")


@pytest.mark.parametrize("path", ["/digits/7", "/digits/7.jpg", "/digits/.png", "/digits/", "/digits/7/8.png"])
def test_other_paths_are_not_found(http: httpx.Client, path: str) -> None:
    assert_problem(http.get(path), "not-found")
