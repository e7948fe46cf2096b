"""Every route with every method: what isn't an answer is a problem document, and Allow is true."""

import httpx
import pytest

from api.app import create_app
from api.settings import load_settings
from tests.api.problem import assert_problem

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
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
    for method in METHODS:
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


def test_a_method_that_nobody_knows_is_no_request(http: httpx.Client) -> None:
    """It ends in the parser, before there is a request that could have an id."""
    answer = http.request("BREW", "/generate")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/malformed-request"


def _places(answer: httpx.Response) -> list[str]:
    errors = answer.json().get("errors", [])
    return [next(value for name, value in error.items() if name != "detail") for error in errors]
