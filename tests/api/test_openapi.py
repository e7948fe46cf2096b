"""The OpenAPI document is true and complete, and every problem's type has its page."""

import re
from typing import Any

import httpx
import pytest

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
