"""What GET gives: pages and their files, the OpenAPI document, digits and the story, and what caches may keep."""

import gzip
import re
from typing import Any
from urllib.parse import urljoin

import grpc
import httpx
import numpy as np
import pytest

from api.http import problems
from api.middleware.every_request import NOTHING, PAGE
from api.settings import load_settings
from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from tests.support import saved_models
from tests.support.gateways import FaultyClient, assert_guarded, assert_problem
from tests.support.misbehaving import answer, failing
from tests.support.servers import stripping_proxy

LINKS = re.compile(r'(?:href|src)="((?!#|https?:)[^"]+)"')
IMPORTS = re.compile(r'(?:from|import)\s*\(?"(\./[^"]+)"')


@pytest.mark.parametrize("page", ["", "docs"])
def test_a_page_has_its_own_files_alone_also_below_a_path_prefix(http: httpx.Client, page: str) -> None:
    with stripping_proxy(str(http.base_url).rstrip("/")) as url:
        first = urljoin(url, page)
        seen: dict[str, httpx.Response] = {}
        wanted = {first}
        while new := wanted - seen.keys():
            address = new.pop()
            answer = seen[address] = httpx.get(address)
            assert answer.status_code == 200, address
            is_page = answer.headers["content-type"] == "text/html; charset=utf-8"
            assert_guarded(answer, PAGE if is_page else NOTHING)
            if address == first:
                assert is_page
                wanted |= {urljoin(address, link) for link in LINKS.findall(answer.text)}
            elif "/studio/" in address and not address.endswith(".png"):
                assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), address
                wanted |= {urljoin(address, name) for name in IMPORTS.findall(answer.text)}
    assert "unsafe" not in PAGE
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=|javascript:|(?:src|href)=\"/", seen[first].text)
    assert len([address for address in seen if address.endswith(".js")]) > (1 if page else 10)


def test_a_browser_asks_each_time_whether_a_file_has_changed(http: httpx.Client) -> None:
    for path in ("/", "/studio/main.js", "/studio/mark.png", "/docs", "/docs/files/swagger-ui.css"):
        answer = http.get(path, headers={"Range": "bytes=9-2"})  # ignored
        assert answer.headers["cache-control"] == "public, no-cache"
        again = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        # A browser would put another policy on the page that it has.
        assert again.headers.get("content-security-policy", PAGE) == PAGE
        assert http.head(path).headers["etag"] == answer.headers["etag"]


def test_every_answer_is_guarded(faulty: FaultyClient) -> None:
    for path in ("/healthz/live", "/digits/7.png", "/openapi.json", "/metrics", "/problems/timeout"):
        answer = faulty.get(path, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 200
        assert_guarded(answer)


def test_without_configured_origins_a_preflight_request_is_refused(faulty: FaultyClient) -> None:
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert_problem(faulty.options("/generate", headers=asked), "method-not-allowed")


@pytest.mark.parametrize(("accepted", "coding"), [("br;q=0, gzip", "gzip"), ("identity", None)])
def test_scripts_are_compressed_on_request(http: httpx.Client, accepted: str, coding: str | None) -> None:
    plain = http.get("/studio/main.js", headers={"Accept-Encoding": "identity"}).content
    with http.stream("GET", "/studio/main.js", headers={"Accept-Encoding": accepted}) as answer:
        content = b"".join(answer.iter_raw())
    assert answer.headers.get("content-encoding") == coding
    assert (gzip.decompress(content) if coding else content) == plain
    assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize(
    "path",
    [
        *(f"/studio/{name}" for name in ("", "main.js.map", "../app.py", "%2e%2e/app.py")),
        *(f"/digits/{name}" for name in ("", "7", "7.jpg", ".png", "7/8.png")),
        *("/docs/files/core.py", "/Generate", "/problems/unheard-of", "/models/", "/%00"),
    ],
)
def test_other_paths_are_not_found(http: httpx.Client, path: str) -> None:
    assert_problem(http.get(path), "not-found")


def test_the_openapi_document_is_complete(http: httpx.Client) -> None:
    document: dict[str, Any] = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert references
    assert references <= set(schemas)
    for name, schema in schemas.items():
        for field, about in schema["properties"].items():
            assert about.get("description"), (name, field)
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            assert all(parameter["description"] for parameter in operation.get("parameters", []))
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["content"]) == {"application/problem+json"}, (path, status)
    assert document["servers"] == [{"url": "."}], "relative to the document, also below a path prefix"
    assert schemas["GenerateRequest"]["properties"]["count"]["maximum"] == load_settings().max_stream_images
    assert schemas["ScoreRequest"]["properties"]["images"]["maxItems"] == load_settings().max_score_images


def test_every_type_of_problem_has_its_page(http: httpx.Client) -> None:
    for problem in problems.TYPES:
        page = http.get(problem.uri)
        assert (page.status_code, page.text) == (200, problem.page)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/problems/timeout", "/digits/7.png", "/v2"]
)
def test_head_is_answered_as_get_is_and_other_methods_are_not(http: httpx.Client, path: str) -> None:
    head, got = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    own = ("date", "x-request-id", "transfer-encoding")
    fields = [{name: value for name, value in one.headers.items() if name not in own} for one in (head, got)]
    assert fields[0] == fields[1]
    for method in ("POST", "OPTIONS", "TRACE", "PROPFIND"):
        answer = http.request(method, path, content=b"\xff{", headers={"Content-Type": "application/json"})
        assert_problem(answer, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD"


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
