"""A queue for the model server: requests that wait share calls.

A request that is alone is sent at once. While calls are in flight, requests wait, and the next call takes as many as
fit. So under load the fixed costs of a call are paid once for many requests.

Requests in one call are independent: each has its own time limit, a disconnect cancels only that request, and a call
that fails because of its rows is repeated for each request alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from api.http import deadlines
from serving.contract import BATCH_SIZES
from serving.tf_serving.client import Array, ContractError, NoSignatureError, Prediction

CALLS_IN_FLIGHT: Final = 2
"""Calls of one queue: while the model server computes one, the answers of the other are encoded."""

MAX_BATCH: Final = BATCH_SIZES[-1]
"""Rows in one call."""

LARGEST_SMALL_ROWS: Final = 64

LARGE_AT_ONCE: Final = 2
"""Larger requests of a model in its queues at a time, so that small requests never wait behind more of them."""

Rows = Array | Sequence[int]
"""Rows of a model's input. Seeds stand for their noise, which is computed when the call is sent."""

RunCall = Callable[[Sequence[Rows], float], Awaitable[Prediction]]
"""Runs a model on the rows of several requests, in order, until a time of the event loop. Raises ModelServerError."""


@dataclass(eq=False)
class QueuedRequest:
    """A request that waits for its outputs."""

    rows: Rows
    answer: "asyncio.Future[Prediction]"
    deadline: float = field(default_factory=deadlines.deadline)
    context: Context = field(default_factory=copy_context)
    call: "Call | None" = None


@dataclass(eq=False)
class Call:
    """A call for several requests."""

    requests: list[QueuedRequest]
    rows: int
    task: "asyncio.Task[None] | None" = None


class RequestQueue:
    """Requests that can share calls, first in, first out."""

    def __init__(self, run_call: RunCall) -> None:
        self._run_call = run_call
        self._waiting: deque[QueuedRequest] = deque()
        self._in_flight: set[Call] = set()
        self._scheduled = False

    @property
    def empty(self) -> bool:
        """Whether no request waits and no call is in flight."""
        return not self._waiting and not self._in_flight

    async def predict(self, rows: Rows) -> Prediction:
        """Returns the outputs for at most MAX_BATCH ``rows``. Raises ModelServerError."""
        loop = asyncio.get_running_loop()
        request = QueuedRequest(rows, loop.create_future())
        self._waiting.append(request)
        if not self._scheduled:  # all requests of this round of the event loop can share the call
            self._scheduled = True
            loop.call_soon(self._send)
        try:
            return await request.answer
        except asyncio.CancelledError:
            deadlines.note_part("turn" if request.call is None else "model")
            if request.call is None:
                self._waiting.remove(request)
            elif request.call.task and all(one.answer.done() for one in request.call.requests):
                request.call.task.cancel()
            raise
        finally:
            request.call = None  # Without the cycle the outputs are freed at once.

    def _send(self) -> None:
        """Sends waiting requests as calls. A second call has at least as many rows as the first."""
        self._scheduled = False
        while self._waiting and len(self._in_flight) < CALLS_IN_FLIGHT:
            if sum(len(one.rows) for one in self._waiting) < sum(call.rows for call in self._in_flight):
                return
            call = Call([], 0)
            while self._waiting and call.rows + len(self._waiting[0].rows) <= MAX_BATCH:
                request = self._waiting.popleft()
                request.call = call
                call.requests.append(request)
                call.rows += len(request.rows)
            self._in_flight.add(call)
            call.task = asyncio.create_task(self._run(call), context=call.requests[0].context)
            call.task.add_done_callback(partial(self._end, call))  # it can be cancelled before it begins

    def _end(self, call: Call, _task: object = None) -> None:
        """Sends the next call when ``call`` is over."""
        if call in self._in_flight:
            self._in_flight.remove(call)
            self._send()

    async def _run(self, call: Call) -> None:
        """Makes a call, sends the next one, and gives each request its rows of the outputs, or the error."""
        outcome: Prediction | Exception
        try:
            deadline = max(request.deadline for request in call.requests)
            outcome = await self._run_call([request.rows for request in call.requests], deadline)
        except Exception as error:
            outcome = error
        self._end(call)
        if isinstance(outcome, ContractError) and not isinstance(outcome, NoSignatureError) and len(call.requests) > 1:
            for request in call.requests:  # one of them may be at fault
                await self._run(Call([request], len(request.rows)))
            return
        end = 0
        for request in call.requests:
            start, end = end, end + len(request.rows)
            if request.answer.done():
                continue
            if isinstance(outcome, Exception):
                request.answer.set_exception(outcome)
            else:
                outputs = {name: output[start:end] for name, output in outcome.outputs.items()}
                request.answer.set_result(Prediction(outcome.model, outcome.version, outputs))
