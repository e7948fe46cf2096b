"""Every error is a problem document (RFC 9457): the types, the exception that carries one, the one writer.

The gateway serves a page about each type at the type's URI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


TYPES: Final[list["ProblemType"]] = []
"""Every type of problem, in the order of this module."""


@dataclass(frozen=True)
class ProblemType:
    """A type of problem. ``title`` is the same for every occurrence; ``meaning`` is the text at its URI."""

    slug: str
    status: int
    title: str
    meaning: str
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        TYPES.append(self)

    @property
    def uri(self) -> str:
        return f"/problems/{self.slug}"

    @property
    def page(self) -> str:
        """The text at the type's URI, as Markdown."""
        retry = f" A `Retry-After` of {self.retry_after_s} s comes with it." if self.retry_after_s else ""
        meaning = fill(self.meaning + retry, 110, break_on_hyphens=False)
        return f"## {self.title}\n\n`{self.uri}`, status {self.status}\n\n{meaning}\n"


MALFORMED_REQUEST: Final = ProblemType(
    "malformed-request",
    400,
    "The request cannot be read",
    "The body is not what its `Content-Type` says: JSON that does not parse (`detail` names line and "
    "column), or multipart that breaks off.",
)
UNAUTHENTICATED: Final = ProblemType(
    "unauthenticated",
    401,
    "The request needs an API key",
    "The service takes requests with one of its API keys only: `Authorization: Bearer <key>`, or, for browsers, Basic "
    "authentication with the key as the password. The operator of the service issues keys.",
)
NOT_FOUND: Final = ProblemType(
    "not-found",
    404,
    "There is nothing at this path",
    "The service has no such route. `GET /docs` lists its routes.",
)
MODEL_NOT_FOUND: Final = ProblemType(
    "model-not-found",
    404,
    "There is no such model",
    "The path names an unknown model. `detail` lists the models of the service.",
)
VERSION_NOT_FOUND: Final = ProblemType(
    "version-not-found",
    404,
    "The model has no such version",
    "The model server does not have the `version` in the request. `GET /models` lists the versions; without "
    "`version` the newest one answers.",
)
NO_STORY: Final = ProblemType(
    "no-story",
    404,
    "The generator's version has no story",
    "The story of the training run travels with a version when `digitgan export` publishes it, and this version was "
    "published without. Name a `version` that has one, or export the model again.",
)
METHOD_NOT_ALLOWED: Final = ProblemType(
    "method-not-allowed",
    405,
    "The resource does not take this method",
    "The header `Allow` lists the methods that it takes.",
)
NOT_ACCEPTABLE: Final = ProblemType(
    "not-acceptable",
    406,
    "No format that the request accepts is on offer",
    "The header `Accept` excludes every format that the resource has; `detail` lists them.",
)
NO_SEED_INDEX: Final = ProblemType(
    "no-seed-index",
    409,
    "The generator's version has no index of its seeds",
    "`digit` and `curated` choose among the seeds that the export of a version indexed, and this version was exported "
    "without an index. Name an indexed `version`, leave out `digit` and `curated` (`labels` works with any version), "
    "or export the model again.",
)
REQUEST_TIMEOUT: Final = ProblemType(
    "request-timeout",
    408,
    "The request did not arrive in time",
    "Its header (setting `DIGITGAN_HEADER_TIMEOUT_S`) or its body (setting `DIGITGAN_BODY_TIMEOUT_S`) was still on "
    "its way when the time for it was over.",
)
BODY_TOO_LARGE: Final = ProblemType(
    "body-too-large",
    413,
    "The request's body is too large",
    "`detail` names the limit in bytes (setting `DIGITGAN_MAX_BODY_BYTES`). Split the request.",
)
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    "unsupported-media-type",
    415,
    "The body's media type is not supported",
    "The header `Content-Type` (or `Content-Encoding`) is missing or names a format that the resource "
    "does not take. The answer's header `Accept` lists those that it takes.",
)
INVALID_REQUEST: Final = ProblemType(
    "invalid-request",
    422,
    "The request has invalid values",
    "The request can be read, but a value in it is not allowed. Each entry of `errors` says what is wrong and "
    "where: `pointer` is a JSON pointer into the body (for images sent as multipart, `/images/0` is the "
    "first file; an empty pointer is the whole body), `parameter` names a part of the path or the "
    "query.",
)
RATE_LIMITED: Final = ProblemType(
    "rate-limited",
    429,
    "The API key has no images left for now",
    "Each key has a number of images a minute; a request without images counts as one. `Retry-After` is the number of "
    "seconds until the key has enough images for this request, the header `RateLimit` says how many it has left, and "
    "`RateLimit-Policy` how many it has a minute (draft-ietf-httpapi-ratelimit-headers-10).",
    retry_after_s=0,  # the header is computed for each request
)
HEADER_TOO_LARGE: Final = ProblemType(
    "header-too-large",
    431,
    "The request's header is too large",
    "Request line and header fields together may have 64 KiB, and there may be 100 fields.",
)
INTERNAL_ERROR: Final = ProblemType(
    "internal-error",
    500,
    "The gateway failed",
    "A fault of the service, not of the request. The service's log has the reason.",
)
BROKEN_CONTRACT: Final = ProblemType(
    "broken-contract",
    502,
    "The model server broke the contract",
    "The model server refused a valid request, or answered with a wrong shape, a wrong dtype or numbers "
    "that are not finite. A fault of the deployment, not of the request: the models do not fit the "
    "gateway.",
)
MODEL_NOT_SERVED: Final = ProblemType(
    "model-not-served",
    503,
    "The model is not being served",
    "The model server runs and has no version of the model AVAILABLE (yet), or the version that it was "
    "answering with was withdrawn meanwhile.",
    retry_after_s=5,
)
OVERLOADED: Final = ProblemType(
    "overloaded",
    503,
    "The service is overloaded",
    "The gateway has as many images in progress as it allows (setting `DIGITGAN_MAX_IMAGES_IN_FLIGHT`), or the model "
    "server's queue is full: `detail` says which. No work was done, so the request can be sent again.",
    retry_after_s=1,
)
BUSY: Final = ProblemType(
    "busy",
    503,
    "The gateway has too many clients",
    "There are more connections than `DIGITGAN_MAX_CONNECTIONS`, or the bodies that are on their way hold more than "
    "`DIGITGAN_MAX_WAITING_BYTES`, and this one has been on its way the longest.",
    retry_after_s=1,
)
MODEL_SERVER_UNREACHABLE: Final = ProblemType(
    "model-server-unreachable",
    503,
    "The model server cannot be reached",
    "It is down, restarting, or the connection to it broke.",
    retry_after_s=2,
)
NOT_READY: Final = ProblemType(
    "not-ready",
    503,
    "The service is not ready",
    "A model that the routes need is not AVAILABLE, or the gateway is shutting down. Each entry of "
    "`errors` names a `model` and what is wrong with it.",
)
TIMEOUT: Final = ProblemType(
    "timeout",
    504,
    "The request took too long",
    "Its time ran out: what its header `Request-Timeout` says, at most the setting `DIGITGAN_REQUEST_TIMEOUT_S`. "
    "`detail` says where: at the model server, or while the answer was encoded (ask for fewer or smaller images).",
)


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


OIP_PREFIX: Final = "/v2"
"""Below it clients of the Open Inference Protocol look for ``error``."""


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
