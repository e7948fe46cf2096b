"""Cross-origin requests: browsers refuse them unless their origin is configured (CORS, the Fetch standard)."""

from typing import Any, Final

CORS: Final[dict[str, Any]] = {
    "allow_methods": ("GET", "HEAD", "POST"),
    "allow_headers": (
        "Accept",
        "Authorization",
        "Content-Type",
        "If-None-Match",
        "Inference-Header-Content-Length",
        "Request-Timeout",
        "X-Request-ID",
    ),
    "expose_headers": (
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
    ),
    "max_age": 600,
}
"""Starlette's options for the methods, request fields and answer fields that pages of other origins may use."""


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
