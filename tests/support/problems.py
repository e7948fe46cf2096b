"""The shape of an error."""

from typing import Any

import httpx

from api.http import problems
from api.middleware.every_request import NOTHING

BY_SLUG = {problem.slug: problem for problem in problems.TYPES}


def assert_guarded(response: httpx.Response, policy: str = NOTHING) -> None:
    """Passes if the header fields limit what a browser does with ``response``, and share it with no other site."""
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in response.headers["permissions-policy"]
    assert response.headers["content-security-policy"] == policy
    assert "access-control-allow-origin" not in response.headers


def assert_problem(response: httpx.Response, slug: str, *places: str) -> dict[str, Any]:
    """Passes if ``response`` is the problem ``slug`` (RFC 9457), naming ``places`` alone. Returns the document.

    A place is a JSON pointer, a parameter's name or a model's name.
    """
    problem = BY_SLUG[slug]
    assert response.status_code == problem.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]
    assert ("Retry-After" in response.headers) == (problem.retry_after_s is not None)
    assert_guarded(response)
    document: dict[str, Any] = response.json()
    detail = document["detail"]
    assert isinstance(detail, str)
    assert detail
    expected = {"type": f"/problems/{slug}", "title": problem.title, "status": problem.status, "detail": detail}
    if response.url.path.startswith("/v2"):
        expected["error"] = detail
    assert {name: value for name, value in document.items() if name != "errors"} == expected
    found = []
    for error in document.get("errors", []):
        (where,) = set(error) - {"detail"}
        assert where in {"pointer", "parameter", "model"}
        assert error["detail"]
        found.append(error[where])
    assert sorted(found) == sorted(places)
    assert "Traceback" not in response.text
    return document
