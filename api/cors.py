"""Cross-origin requests: refused by browsers unless their origin is configured (the Fetch standard's CORS protocol)."""

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from api.problems import MALFORMED_REQUEST, ProblemError, problem_response

METHODS: Final = ("GET", "HEAD", "POST")
REQUEST_FIELDS: Final = (
    "Accept",
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "Inference-Header-Content-Length",
    "Request-Timeout",
    "X-Request-ID",
)
ANSWER_FIELDS: Final = (
    "ETag",
    "Inference-Header-Content-Length",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Classifier-Version",
    "X-Discriminator-Version",
    "X-Model",
    "X-Model-Version",
    "X-Request-ID",
    "X-Seeds",
)


class Cors(CORSMiddleware):
    """Starlette's middleware for ``origins``; a preflight request that is refused gets a problem document."""

    def __init__(self, app: object, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,  # type: ignore[arg-type]
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_FIELDS,
            expose_headers=ANSWER_FIELDS,
            max_age=600,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Returns the answer to a preflight request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        detail = "the origin, the method or a header field of the cross-origin request is not allowed"
        return problem_response(ProblemError(MALFORMED_REQUEST, detail, headers=kept), path="")  # a browser reads it


def origins_of(text: str) -> tuple[str, ...]:
    """Returns the origins in a setting, separated by commas or spaces: "https://example.org", or "*" for any.

    Raises ValueError for what isn't an origin.
    """
    found = tuple(text.replace(",", " ").split())
    for origin in found:
        scheme, _, host = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not host or set(host) & set("/?#@")):
            raise ValueError("should be origins like https://example.org, separated by commas, or *")
    return found
