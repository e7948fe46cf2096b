"""Content negotiation: which of our formats a request's ``Accept`` prefers (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Sequence
from typing import Final

from api.problems import NOT_ACCEPTABLE, ProblemError

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token, no secret
_RANGE: Final = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*(;.*)?", re.DOTALL)
_QUALITY: Final = re.compile(r";\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)
_ANY_QUALITY: Final = re.compile(r";\s*q\s*=", re.IGNORECASE)


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """Returns the media type out of ``offers`` (ours, best first) that the header ``accept`` prefers.

    The more specific range decides about an offer, and ``q=0`` excludes it. Of equally good offers the one
    that was named more specifically wins, and then the one that we put first. No header, or an empty one,
    accepts anything. Ranges that aren't well-formed are ignored.

    Raises ProblemError (406) if every offer is excluded.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [parsed for part in accept.split(",") if (parsed := _parse(part))]
    best, best_rank = None, (0.0, 0)
    for offer in offers:
        specificity, quality = max(((_specificity(offer, name), quality) for name, quality in ranges), default=(0, 0.0))
        if specificity and (quality, specificity) > best_rank and quality > 0:
            best, best_rank = offer, (quality, specificity)
    if best is None:
        raise ProblemError(NOT_ACCEPTABLE, f"available: {', '.join(offers)}", headers={"Vary": "Accept"})
    return best


def _parse(part: str) -> tuple[str, float] | None:
    """Returns the media range in lower case and its quality; None for what isn't one."""
    found = _RANGE.fullmatch(part)
    if not found:
        return None
    parameters = found[3] or ""
    quality = _QUALITY.search(parameters)
    if quality is None and _ANY_QUALITY.search(parameters):
        return None
    return f"{found[1]}/{found[2]}".lower(), float(quality[1]) if quality else 1.0


def _specificity(offer: str, media_range: str) -> int:
    """Returns 3 for the type itself, 2 for ``type/*``, 1 for ``*/*``, 0 if the range leaves the offer out."""
    if media_range == offer:
        return 3
    if media_range == offer.partition("/")[0] + "/*":
        return 2
    return int(media_range == "*/*")
