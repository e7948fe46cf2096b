"""Which requests are refused by the header of another."""

import pytest

from api.admission import gated_route
from api.refusals import LONGEST_HEADER, MOST_HEADERS, RefusedBefore, refusal

ROUTE = gated_route("POST", "/generate")
assert ROUTE
REFUSAL = refusal(ROUTE, "", close=False)


def request(*fields: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"POST /generate HTTP/1.1\r\n%b\r\n%b" % (lines, body)


@pytest.mark.parametrize(("fields", "body"), [((), b""), (((b"content-length", b"5"),), b"12345")])
def test_a_header_that_was_refused_is_known_with_a_body_as_long(
    fields: tuple[tuple[bytes, bytes], ...], body: bytes
) -> None:
    before = RefusedBefore()
    before.remember(request(*fields, body=body), fields, REFUSAL)
    assert before.find(request(*fields, body=b"x" * len(body))) is REFUSAL
    for other in (
        request(*fields, body=body + b"P"),
        request(*fields, body=body + request(*fields, body=body)),
        request(*fields, (b"host", b"x"), body=body),
        request(*fields, body=body)[:-1],
        b"",
        b"\r\n\r\n",
    ):
        assert before.find(other) is None


def test_a_header_that_is_cut_before_its_end_is_not_known_whatever_the_length_of_its_body() -> None:
    before = RefusedBefore()
    for length in range(100):
        field = (b"content-length", b"%02d" % length)
        whole = request(field, body=b"x" * length)
        before.remember(whole, [field], REFUSAL)
        assert before.find(whole) is REFUSAL
        assert not any(before.find(whole[:end]) for end in range(len(whole)))


@pytest.mark.parametrize(
    "field",
    [
        (b"x-request-id", b"mine"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"expect", b"100-continue"),
        (b"content-length", b"1"),
        (b"x-long", b"x" * LONGEST_HEADER),
    ],
)
def test_what_needs_a_look_at_each_request_is_not_remembered(field: tuple[bytes, bytes]) -> None:
    before = RefusedBefore()
    before.remember(request(field), [field], REFUSAL)
    assert before.find(request(field)) is None


def test_only_so_many_are_remembered() -> None:
    before = RefusedBefore()
    requests = [request((b"x", b"%d" % number)) for number in range(10 * MOST_HEADERS)]
    for one in requests:
        before.remember(one, [], REFUSAL)
    assert before.find(requests[-1]) is REFUSAL
    assert 0 < sum(before.find(one) is REFUSAL for one in requests) <= MOST_HEADERS
