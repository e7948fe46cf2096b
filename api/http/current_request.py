"""The request in progress: its id, its time limit, and its calls of the model server."""

import asyncio
import math
import random
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.requests import Request

from api.http.problems import TIMEOUT, ProblemError, at_parameter, invalid

ID_HEADER: Final = "x-request-id"
TIMEOUT_HEADER: Final = "Request-Timeout"
_VALID_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")  # can be logged, and sent on, without escapes
_SECONDS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")

TIMEOUT_PARAMETER: Final[dict[str, Any]] = {  # the header as OpenAPI has it; a number without an exponent
    "name": TIMEOUT_HEADER,
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 999_999},
    "description": "The seconds that the request may take, or a batch of a stream. At most what the service allows,"
    " which is the default.",
}

Part = Literal["turn", "model", "answer"]
_RAN_OUT: Final[dict[Part, str]] = {  # where time runs out, for metrics and in words
    "turn": "in the queue for the model server",
    "model": "at the model server",
    "answer": "while the answer was being made",
}


@dataclass(slots=True)
class CurrentRequest:
    """What is known so far of a request in progress."""

    request_id: str = ""
    deadline: float = math.inf  # when its time limit ends, in the event loop's time
    waited_for: Part = "answer"  # when it was cancelled
    model_seconds: float = 0.0  # its waits for the model server
    versions: dict[str, int] = field(default_factory=dict)  # of the models that have answered it


current: Final[ContextVar[CurrentRequest]] = ContextVar("current")  # the request that this task works for


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the caller's id of the request where it is a valid one, and a new one otherwise."""
    given = dict(headers).get(ID_HEADER.encode(), b"")
    if _VALID_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"  # a name and no secret: refusals need thousands a second


@asynccontextmanager
async def time_limit(request: Request) -> AsyncIterator[None]:
    """Cancels the block after the seconds in the header of ``request``, or those in the settings if they are fewer.

    Raises ProblemError: 422 if the header is wrong, 504 when the time is over, with the part of the work that took it.
    """
    limit_s: float = request.state.gateway.settings.request_timeout_s
    text = request.headers.get(TIMEOUT_HEADER)  # by hand: FastAPI would take 0.1 ms for it
    if text is not None:
        if not _SECONDS.fullmatch(text) or not float(text):
            raise invalid(at_parameter(TIMEOUT_HEADER, "should be a number of seconds above 0, such as 2.5"))
        limit_s = min(float(text), limit_s)
    work = current.get()
    work.deadline = asyncio.get_running_loop().time() + limit_s
    work.waited_for = "answer"
    try:
        async with asyncio.timeout_at(work.deadline):
            yield
    except TimeoutError as error:
        raise ProblemError(TIMEOUT, f"{limit_s:g} s ran out {_RAN_OUT[work.waited_for]}") from error
