"""Refusals as they go out on a connection, and which requests get one without being parsed.

Under overload most requests are refused, and what that takes is lost for the others. Most of them begin, byte for byte,
like one that was refused a moment before: their header needs no second look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.admission import REFUSAL, GatedRoute
from api.observation import HEADER
from api.problems import ProblemError, problem_response
from api.security_headers import ALWAYS, NOTHING, POLICY

MOST_HEADERS: Final = 256
LONGEST_HEADER: Final = 2048
"""Bytes of a header that is remembered."""

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length"
_SPECIAL: Final = frozenset({HEADER, b"transfer-encoding", b"upgrade", b"expect"})
"""Fields that make an answer, or where its request ends, a matter of more than the header and the body's length."""


def closing_answer(error: ProblemError) -> bytes:
    """Returns ``error`` as the last answer on a connection."""
    head, body = _written(error, "", True)
    return head + b"\r\n" + body


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a request to ``route`` is told that finds no room: the status line and fields, and the body."""

    route: GatedRoute
    head: bytes
    body: bytes

    def answer(self, request_id: str) -> bytes:
        """Returns all that goes out."""
        return b"%b%b: %b\r\n\r\n%b" % (self.head, HEADER, request_id.encode(), self.body)


def refusal(route: GatedRoute, prefix: str, close: bool) -> Refusal:
    """Returns what a request to ``route`` is told. ``prefix``: of the API it belongs to."""
    return Refusal(route, *_prepared(REFUSAL, prefix, close))


class RefusedBefore:
    """The refusals of late, by the header that they answered."""

    def __init__(self) -> None:
        self._refusals: dict[bytes, tuple[int, Refusal]] = {}

    def find(self, data: bytes) -> Refusal | None:
        """Returns what a request like ``data`` was answered: one that has the same header, and is whole as it has."""
        end = data.find(_END, 0, LONGEST_HEADER)
        body_bytes, refusal = self._refusals.get(data[:end], (-1, None))
        return refusal if end > 0 and len(data) - end - len(_END) == body_bytes else None

    def remember(self, data: bytes, fields: Sequence[tuple[bytes, bytes]], refusal: Refusal) -> None:
        """Takes note of a ``refusal``, if what it answered can be told by its header.

        ``data``: whole requests, of which the last got it; ``fields``: of that one.
        """
        end = data.find(_END, 0, LONGEST_HEADER)
        body_bytes = len(data) - end - len(_END)
        named = dict(fields)
        if end <= 0 or named.keys() & _SPECIAL or int(named.get(_LENGTH, 0)) != body_bytes:
            return
        if len(self._refusals) >= MOST_HEADERS:
            self._refusals.clear()
        self._refusals[data[:end]] = body_bytes, refusal


def _written(error: ProblemError, path: str, close: bool) -> tuple[bytes, bytes]:
    """Returns ``error`` as it goes to the caller of ``path``: status line and fields, and the body."""
    response = problem_response(error, path)
    fields = {**response.headers, **{name.lower(): value for name, value in ALWAYS}}
    fields |= {POLICY.lower(): NOTHING} | ({"connection": "close"} if close else {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return STATUS_LINE[error.problem.status] + lines.encode(), bytes(response.body)


_prepared = lru_cache(maxsize=4)(_written)
