"""Content negotiation: which of the formats on offer a request's ``Accept`` prefers (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from starlette.requests import Request

from api.http.problems import NOT_ACCEPTABLE, ProblemError


def negotiate(request: Request, offers: Sequence[str]) -> str:
    """Returns the media type out of ``offers``, best first, that the request's ``Accept`` prefers.

    The most specific range decides about an offer, and ``q=0`` excludes it. Of offers with equal quality, the one that
    is named more specifically wins, and then the first one. No header, or an empty one, accepts anything.

    Raises ProblemError (406) if every offer is excluded.
    """
    ranges = _ranges(",".join(request.headers.getlist("accept")))
    if not ranges:
        return offers[0]

    def rank(offer: str) -> tuple[float, int]:
        names = (offer, f"{offer.partition('/')[0]}/*", "*/*")
        matching = ((3 - names.index(name), quality) for name, quality in ranges if name in names)
        specificity, quality = max(matching, default=(0, 0.0))
        return quality, specificity

    best = max(offers, key=rank)
    if not rank(best)[0]:
        raise ProblemError(NOT_ACCEPTABLE, f"available: {', '.join(offers)}", headers={"Vary": "Accept"})
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Returns the media ranges in lower case with their qualities.

    It takes what Java's HttpURLConnection sends, ``*; q=.2``, and blanks around ``=``. A quality that is not a number
    from 0 to 1 makes the range one that matches nothing.
    """
    found = []
    for part in filter(str.strip, accept.lower().split(",")):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = -1.0
        found.append(("*/*" if name == "*" else name, quality) if 0 <= quality <= 1 else ("", 0.0))
    return found
