"""How long a request may take: its own limit or the service's, as a budget that all of its parts share.

The time runs from when the request has arrived whole. The model server gets what is left of it, less what the answer
still needs; work that can't be done in time any more isn't sent; and whoever gets a 504 is told which part ran out.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from starlette.requests import Request

from api.problems import TIMEOUT, ProblemError, at_parameter, invalid

HEADER: Final = "Request-Timeout"
_FIELD: Final = HEADER.lower().encode()
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
"""Where time runs out: waiting for a turn at the model server, at the model server, or making the answer."""

TimeLeft = Callable[[], float]
"""Returns the seconds that the next call may take. Raises OutOfTimeError if there are none."""

_SECONDS_A_PIXEL: Final = 20e-9
"""To make a PNG of digits and to put it into an answer: 4 ms for 256 of them (``python -m benchmarks.gateway``)."""
_LEAST_ANSWER_S: Final = 0.001
_MOST_FOR_ANSWER: Final = 0.5
"""Of a limit: however large the answer, the model server gets a try."""


def limit_of(request: Request, most: float) -> float:
    """Returns the seconds that ``request`` may take: what its header says, and ``most`` at most.

    Read by hand: FastAPI would take 0.1 ms for it. Raises ProblemError (422).
    """
    text = next((value.decode("latin-1") for name, value in request.scope["headers"] if name == _FIELD), None)
    if text is None:
        return most
    if not _SECONDS.fullmatch(text) or not float(text):
        raise invalid(at_parameter(HEADER, "should be a number of seconds above 0, such as 2.5"))
    return min(float(text), most)


class OutOfTimeError(ProblemError):
    """A request's time ran out (504). ``part`` tells where."""

    def __init__(self, part: Part, detail: str) -> None:
        super().__init__(TIMEOUT, detail)
        self.part = part


class Deadline:
    """When the time of a request ends: ``limit_s`` from now."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Returns the seconds that are left; below 0 if none are."""
        return self._end - time.monotonic()

    def for_calls(self, pixels: int = 0) -> TimeLeft:
        """Returns what the model server may take, so that there is time for an answer of ``pixels`` afterwards."""
        answer_s = min(_LEAST_ANSWER_S + pixels * _SECONDS_A_PIXEL, self.limit_s * _MOST_FOR_ANSWER)

        def left_s() -> float:
            left_s = self.left_s() - answer_s
            if left_s <= 0:
                raise OutOfTimeError("model", f"{self.limit_s:g} s ran out at the model server, before its last call")
            return left_s

        return left_s

    @asynccontextmanager
    async def making_the_answer(self) -> AsyncIterator[None]:
        """Gives the block what is left. Raises OutOfTimeError if that isn't enough."""
        try:
            async with asyncio.timeout(self.left_s()):
                yield
        except TimeoutError as error:
            raise OutOfTimeError("answer", f"{self.limit_s:g} s ran out while the answer was being made") from error
