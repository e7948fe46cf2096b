"""What a cacheable GET owes its clients: how long an answer stays fresh, and whether they have it already."""

from typing import Final

from fastapi import Request

FOREVER: Final = "public, max-age=31536000, immutable"
"""What is named by its version, or by its content, never changes."""
REVALIDATE: Final = "public, no-cache"
"""What comes from the newest version does, when a newer one is published: ask each time, at the price of a 304."""


def matches(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names the tag, by the weak comparison of RFC 9110, section 13.1.2."""
    tags = [tag.strip().removeprefix("W/") for tag in ", ".join(request.headers.getlist("if-none-match")).split(",")]
    return etag.removeprefix("W/") in tags or tags == ["*"]
