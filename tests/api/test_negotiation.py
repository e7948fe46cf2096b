"""Accept: quality, specificity and exclusion by RFC 9110, section 12.5.1."""

import pytest
from starlette.requests import Request

from api.http.negotiation import negotiate
from api.http.problems import NOT_ACCEPTABLE, ProblemError

OFFERS = ("application/json", "image/png", "application/zip")
JAVA_8 = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


def request(accept: str | None) -> Request:
    return Request({"type": "http", "headers": [] if accept is None else [(b"accept", accept.encode())]})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("application/zip, image/png", "image/png"),
        ("image/png;q=0.5, application/zip", "application/zip"),
        ("image/png ; q=0.500 , application/zip ; q=0.501", "application/zip"),
        ("image/png;Q=0.1, application/zip;Q=0.2", "application/zip"),
        ("*/*;q=0.9, image/*;q=0.8", "application/json"),
        ("application/*, application/json;q=0", "application/zip"),
        ("application/json;q=0.2, */*;q=0.9", "image/png"),
        ("text/html, application/xhtml+xml, image/avif, image/webp, image/png, */*;q=0.8", "image/png"),
        ("image/png;level=1;q=0.9, application/zip;q=0.8", "image/png"),
        ("rubbish, image/png", "image/png"),
        (",,image/png,", "image/png"),
        ("image/png;q=rubbish, application/zip", "application/zip"),
        ("image/png;q=1.5, application/zip;q=0.1", "application/zip"),
        ("image/png;q=nan, application/zip;q=0.1", "application/zip"),
        (JAVA_8, "application/json"),
        ("*", "application/json"),
        ("image/png; q = .5, application/zip ; q=1.", "application/zip"),
    ],
)
def test_the_preferred_offer_is_chosen(accept: str | None, chosen: str) -> None:
    assert negotiate(request(accept), OFFERS) == chosen


@pytest.mark.parametrize(
    "accept", ["text/html", "text/*", "*/*;q=0", "rubbish", "image/png;q=0", "*/png", "image/png;q=2", ";q=1"]
)
def test_when_all_are_excluded_the_offers_are_told(accept: str) -> None:
    with pytest.raises(ProblemError) as raised:
        negotiate(request(accept), OFFERS)
    assert raised.value.problem is NOT_ACCEPTABLE
    assert all(offer in raised.value.detail for offer in OFFERS)
