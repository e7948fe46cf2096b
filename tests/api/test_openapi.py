"""The OpenAPI document is true and complete, every type of problem has its page, and every method has its answer."""

import re
from typing import Any

import httpx
import pytest

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


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/problems/timeout", "/digits/7.png", "/v2"]
)
def test_head_is_answered_as_get_is_and_other_methods_are_not(http: httpx.Client, path: str) -> None:
    """tests/fuzz/test_schemathesis.py tries all methods on all paths of the document."""
    head, got = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    own = ("date", "x-request-id", "transfer-encoding")
    fields = [{name: value for name, value in one.headers.items() if name not in own} for one in (head, got)]
    assert fields[0] == fields[1]
    for method in ("POST", "OPTIONS", "TRACE", "PROPFIND"):
        answer = http.request(method, path, content=b"\xff{", headers={"Content-Type": "application/json"})
        assert_problem(answer, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD"
