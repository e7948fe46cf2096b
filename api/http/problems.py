"""Every error is a problem document (RFC 9457): the types, the exception that carries one, the one writer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
OIP_PREFIX: Final = "/v2"  # below it, clients of the Open Inference Protocol look for ``error``

_MEANINGS: Final = {
    slug: meaning.strip()
    for slug, _, meaning in (
        section.partition("\n") for section in Path(__file__).with_suffix(".md").read_text("utf-8").split("\n## ")
    )
}

TYPES: Final[list["ProblemType"]] = []  # in the order of this module


@dataclass(frozen=True)
class ProblemType:
    """A type of problem. The gateway serves a page about it at its URI."""

    slug: str
    status: int
    title: str
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        assert self.slug in _MEANINGS, f"problems.md has no section {self.slug}"
        TYPES.append(self)

    @property
    def uri(self) -> str:
        return f"/problems/{self.slug}"

    @property
    def page(self) -> str:
        """The text at the URI, as Markdown."""
        retry = f" A `Retry-After` of {self.retry_after_s} s comes with it." if self.retry_after_s else ""
        return f"## {self.title}\n\n`{self.uri}`, status {self.status}\n\n{_MEANINGS[self.slug]}{retry}\n"


MALFORMED_REQUEST: Final = ProblemType("malformed-request", 400, "The request cannot be read")
UNAUTHENTICATED: Final = ProblemType("unauthenticated", 401, "The request needs an API key")
NOT_FOUND: Final = ProblemType("not-found", 404, "There is nothing at this path")
MODEL_NOT_FOUND: Final = ProblemType("model-not-found", 404, "There is no such model")
VERSION_NOT_FOUND: Final = ProblemType("version-not-found", 404, "The model has no such version")
NO_STORY: Final = ProblemType("no-story", 404, "The generator's version has no story")
METHOD_NOT_ALLOWED: Final = ProblemType("method-not-allowed", 405, "The resource does not take this method")
NOT_ACCEPTABLE: Final = ProblemType("not-acceptable", 406, "No format that the request accepts is on offer")
NO_SEED_INDEX: Final = ProblemType("no-seed-index", 409, "The generator's version has no index of its seeds")
REQUEST_TIMEOUT: Final = ProblemType("request-timeout", 408, "The request did not arrive in time")
BODY_TOO_LARGE: Final = ProblemType("body-too-large", 413, "The request's body is too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType("unsupported-media-type", 415, "The body's media type is not supported")
INVALID_REQUEST: Final = ProblemType("invalid-request", 422, "The request has invalid values")
# Its Retry-After is computed for each request.
RATE_LIMITED: Final = ProblemType("rate-limited", 429, "The API key has no images left for now", retry_after_s=0)
HEADER_TOO_LARGE: Final = ProblemType("header-too-large", 431, "The request's header is too large")
INTERNAL_ERROR: Final = ProblemType("internal-error", 500, "The gateway failed")
BROKEN_CONTRACT: Final = ProblemType("broken-contract", 502, "The model server broke the contract")
MODEL_NOT_SERVED: Final = ProblemType("model-not-served", 503, "The model is not being served", retry_after_s=5)
OVERLOADED: Final = ProblemType("overloaded", 503, "The service is overloaded", retry_after_s=1)
BUSY: Final = ProblemType("busy", 503, "The gateway has too many clients", retry_after_s=1)
MODEL_SERVER_UNREACHABLE: Final = ProblemType(
    "model-server-unreachable", 503, "The model server cannot be reached", retry_after_s=2
)
NOT_READY: Final = ProblemType("not-ready", 503, "The service is not ready")
TIMEOUT: Final = ProblemType("timeout", 504, "The request took too long")


def at_pointer(pointer: str, detail: str) -> dict[str, str]:
    """Returns an entry of ``errors``: what is wrong at a JSON pointer into the body."""
    return {"pointer": pointer, "detail": detail}


def at_parameter(parameter: str, detail: str) -> dict[str, str]:
    """Returns an entry of ``errors``: what is wrong with a parameter of path or query."""
    return {"parameter": parameter, "detail": detail}


class ProblemError(Exception):
    """Ends a request with a problem document.

    ``detail`` helps the client to repair this request; ``at_pointer`` and ``at_parameter`` return ``errors``.
    """

    def __init__(
        self,
        problem: ProblemType,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})


def invalid(*errors: Mapping[str, str]) -> ProblemError:
    """Returns the ProblemError for invalid values in a request that could be read."""
    places = [error.get("pointer", error.get("parameter", "")) for error in errors]
    where = ", ".join(place or "the body" for place in places)
    return ProblemError(INVALID_REQUEST, f"invalid: {where}: {errors[0]['detail']}", errors=errors)


def problem_response(error: ProblemError, path: str) -> Response:
    """Returns ``error`` as it goes to the caller of ``path``: the only place that writes problem documents."""
    problem = error.problem
    document: dict[str, Any] = {
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status,
        "detail": error.detail,
    }
    if error.errors:
        document["errors"] = error.errors
    if path == OIP_PREFIX or path.startswith(f"{OIP_PREFIX}/"):
        document["error"] = error.detail
    headers = {"Cache-Control": "no-store"} | error.headers
    if problem.retry_after_s is not None:
        headers.setdefault("Retry-After", str(problem.retry_after_s))
    return Response(orjson.dumps(document), problem.status, headers, MEDIA_TYPE)
