"""The OpenAPI document is true and complete, every type of problem has its page, and every method has its answer."""

import re
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.http import problems
from api.settings import load_settings
from tests.support.problems import assert_problem


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_the_document_is_complete(document: dict[str, Any]) -> None:
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


def test_the_document_names_its_server_and_the_limits_in_force(document: dict[str, Any]) -> None:
    assert document["servers"] == [{"url": "."}], "relative to the document, also below a path prefix"
    schemas = document["components"]["schemas"]
    assert schemas["GenerateRequest"]["properties"]["count"]["maximum"] == load_settings().max_stream_images
    assert schemas["ScoreRequest"]["properties"]["images"]["maxItems"] == load_settings().max_score_images


def test_every_type_of_problem_has_its_page(http: httpx.Client) -> None:
    for problem in problems.TYPES:
        page = http.get(problem.uri)
        assert (page.status_code, page.text) == (200, problem.page)
    assert_problem(http.get("/problems/none"), "not-found")


ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HIDDEN = ("/", "/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/problems/timeout")
"""Paths for GET that the OpenAPI document leaves out."""


def routes() -> dict[str, set[str]]:
    """Every path, with the methods that it takes: HEAD wherever GET is."""
    found = {path: {"GET"} for path in HIDDEN}
    for path, item in create_app(load_settings()).openapi()["paths"].items():
        found[path.format(seed=7, model="generator", version=1)] = {method.upper() for method in item}
    return {path: methods | ({"HEAD"} if "GET" in methods else set()) for path, methods in found.items()}


ROUTES = routes()


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_every_method_is_answered(http: httpx.Client, path: str) -> None:
    for method in ALL_METHODS:
        for content in (b"", b"\xff{"):
            answer = http.request(method, path, content=content, headers={"Content-Type": "application/json"})
            if method not in ROUTES[path]:
                if method == "HEAD":
                    assert answer.status_code == 405
                else:
                    assert_problem(answer, "method-not-allowed")
                assert set(answer.headers["allow"].split(", ")) == ROUTES[path]
            elif method == "HEAD":
                assert (answer.status_code, answer.content) == (200, b"")
            elif answer.status_code >= 400:
                assert answer.status_code < 500
                assert answer.headers["content-type"] == "application/problem+json"
