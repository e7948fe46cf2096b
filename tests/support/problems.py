"""The one helper that proves the shape of an error."""

from typing import Any

import httpx

from api.http import problems

BY_SLUG = {problem.slug: problem for problem in problems.TYPES}


def assert_problem(response: httpx.Response, slug: str, *places: str) -> dict[str, Any]:
    """Proves that ``response`` is the problem ``slug`` (RFC 9457), naming ``places``; returns the document.

    A place is a JSON pointer, a parameter's name or a model's name; there must be no others.
    """
    problem = BY_SLUG[slug]
    assert response.status_code == problem.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    oip = response.url.path.startswith("/v2")
    assert set(document) - {"errors"} == {"type", "title", "status", "detail"} | ({"error"} if oip else set())
    assert document.get("error", document["detail"]) == document["detail"]
    assert response.headers["x-request-id"]
    assert document["type"] == f"/problems/{slug}"
    assert document["title"] == problem.title
    assert document["status"] == response.status_code
    assert isinstance(document["detail"], str)
    assert document["detail"]
    errors = document.get("errors", [])
    found = []
    for error in errors:
        (where,) = set(error) - {"detail"}
        assert where in {"pointer", "parameter", "model"}
        assert error["detail"]
        found.append(error[where])
    assert sorted(found) == sorted(places)
    assert ("Retry-After" in response.headers) == (problem.retry_after_s is not None)
    assert "Traceback" not in response.text
    return document
