"""Caching of GET answers: how long they stay fresh, and whether the client has them already."""

from typing import Final

from fastapi import Request

FOREVER: Final = "public, max-age=31536000, immutable"
"""For answers of a version that the request names: they never change."""
REVALIDATE: Final = "public, no-cache"
"""For answers that may change, such as those of the newest version: clients ask each time, and get a 304."""


def matches(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names the tag, by the weak comparison of RFC 9110, section 13.1.2."""
    tags = [tag.strip().removeprefix("W/") for tag in ", ".join(request.headers.getlist("if-none-match")).split(",")]
    return etag.removeprefix("W/") in tags or tags == ["*"]
