"""The OpenAPI document is true and complete, every problem's type has its page, and every method has its answer."""

import re
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.http import problems
from api.settings import load_settings
from tests.api.problem import assert_problem

METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "trace"}


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert references
    assert references <= set(document["components"]["schemas"])


def test_every_field_and_parameter_is_described(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema["properties"].items():
            assert about.get("description"), (name, field)
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert all(parameter["description"] for parameter in operation.get("parameters", []))


def test_every_failure_is_a_problem_document(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert set(response["content"]) == {"application/problem+json"}, (method, path, status)


def test_limits_in_the_document_are_those_in_force(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["GenerateRequest"]["properties"]["count"]["maximum"] == load_settings().max_stream_images
    assert schemas["ScoreRequest"]["properties"]["images"]["maxItems"] == load_settings().max_score_images


@pytest.mark.parametrize("problem", problems.TYPES, ids=lambda problem: problem.slug)
def test_every_problems_type_leads_to_its_page(http: httpx.Client, problem: problems.ProblemType) -> None:
    page = http.get(problem.uri)
    assert page.status_code == 200
    assert page.text == problem.page


def test_an_unknown_problem_has_no_page(http: httpx.Client) -> None:
    assert_problem(http.get("/problems/none"), "not-found")


ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HIDDEN = {
    "/": {"GET"},
    "/docs": {"GET"},
    "/docs/files/swagger-ui.css": {"GET"},
    "/openapi.json": {"GET"},
    "/problems/timeout": {"GET"},
}
"""Those that the OpenAPI document leaves out."""


def routes() -> dict[str, set[str]]:
    """Every path, with the methods that it takes: HEAD wherever GET is."""
    found = {path: set(methods) for path, methods in HIDDEN.items()}
    for path, item in create_app(load_settings()).openapi()["paths"].items():
        place = path.format(seed=7, model="generator", version=1)
        found[place] = {method.upper() for method in item}
    return {path: methods | ({"HEAD"} if "GET" in methods else set()) for path, methods in found.items()}


ROUTES = routes()


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_every_method_is_answered(http: httpx.Client, path: str) -> None:
    for method in ALL_METHODS:
        for content in (b"", b"\xff{"):
            answer = http.request(method, path, content=content, headers={"Content-Type": "application/json"})
            if method == "HEAD":
                assert not answer.content
                assert answer.status_code == (200 if "HEAD" in ROUTES[path] else 405)
            elif method not in ROUTES[path]:
                assert_problem(answer, "method-not-allowed")
            elif answer.status_code >= 400:
                assert answer.status_code < 500
                assert_problem(answer, answer.json()["type"].removeprefix("/problems/"), *_places(answer))
            if method not in ROUTES[path]:
                assert answer.headers["content-type"] == "application/problem+json"
                assert set(answer.headers["allow"].split(", ")) == ROUTES[path]


def test_an_unknown_method_is_no_request(http: httpx.Client) -> None:
    """It ends in the parser, before there is a request that could have an id."""
    answer = http.request("BREW", "/generate")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/malformed-request"


def _places(answer: httpx.Response) -> list[str]:
    errors = answer.json().get("errors", [])
    return [next(value for name, value in error.items() if name != "detail") for error in errors]
