"""Time limits: a request's own or the service's, from when its body is read. A 504 names the part that took the time.

async with time_limit(limit_of(request, settings.request_timeout_s)):
    ...  # the work
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.requests import Request

from api.http.problems import TIMEOUT, ProblemError, at_parameter, invalid

HEADER: Final = "Request-Timeout"
_SECONDS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")

PARAMETER: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 999_999},
    "description": "The seconds that the request may take, or a batch of a stream. At most what the service allows,"
    " which is the default.",
}
"""The header as OpenAPI has it; a number without an exponent."""

Part = Literal["turn", "model", "answer"]
"""Where time runs out: in the queue for the model server, at the model server, or making the answer."""

_DETAILS: Final[dict[Part, str]] = {
    "turn": "in the queue for the model server",
    "model": "at the model server",
    "answer": "while the answer was being made",
}


@dataclass
class _Limit:
    """The time limit in force. ``part``: what the request waited for when the time ran out."""

    deadline: float
    part: Part = "answer"


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


def limit_of(request: Request, most: float) -> float:
    """Returns the seconds that ``request`` may take: what its header says, and ``most`` at most.

    Read by hand: FastAPI would take 0.1 ms for it. Raises ProblemError (422).
    """
    text = request.headers.get(HEADER)
    if text is None:
        return most
    if not _SECONDS.fullmatch(text) or not float(text):
        raise invalid(at_parameter(HEADER, "should be a number of seconds above 0, such as 2.5"))
    return min(float(text), most)


class OutOfTimeError(ProblemError):
    """The time of a request ran out (504) in ``part``."""

    def __init__(self, part: Part, limit_s: float) -> None:
        super().__init__(TIMEOUT, f"{limit_s:g} s ran out {_DETAILS[part]}")
        self.part = part


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after ``seconds``, and raises OutOfTimeError then."""
    limit = _Limit(asyncio.get_running_loop().time() + seconds)
    _limit.set(limit)
    try:
        async with asyncio.timeout_at(limit.deadline):
            yield
    except TimeoutError as error:
        raise OutOfTimeError(limit.part, seconds) from error


def deadline() -> float:
    """Returns when the current time limit ends, in the event loop's time; infinity without one."""
    limit = _limit.get()
    return math.inf if limit is None else limit.deadline


def note_part(part: Part) -> None:
    """Notes what a cancelled request waited for, in case the time ran out."""
    if limit := _limit.get():
        limit.part = part


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Notes what the block waits for, if it is cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        note_part(name)
        raise
