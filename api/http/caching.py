"""Cacheable answers to GET: how long they stay fresh, and 304 for clients that have them already."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

FOREVER: Final = "public, max-age=31536000, immutable"
"""For answers of a version that the request names: they never change."""
REVALIDATE: Final = "public, no-cache"
"""For answers that may change, such as those of the newest version: clients ask each time, and get a 304."""

HEADERS: Final[dict[str, Any]] = {
    "ETag": {"schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
}
"""What such an answer adds to the OpenAPI document."""


def cacheable(
    request: Request, content: bytes, media_type: str, headers: Mapping[str, str], version: int | None
) -> Response:
    """Returns the answer, or 304 if ``If-None-Match`` names it. ``version``: the one that the request names."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**headers, "ETag": etag, "Cache-Control": REVALIDATE if version is None else FOREVER}
    # The weak comparison of RFC 9110, section 13.1.2.
    tags = [tag.strip().removeprefix("W/") for tag in ", ".join(request.headers.getlist("if-none-match")).split(",")]
    if etag in tags or tags == ["*"]:
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type)
