"""Queues for the model server: requests that wait share calls.

A request that is alone is sent at once. While calls are in flight, requests wait in the queue of their kind, and the
next call takes as many as fit. So under load the fixed costs of a call are paid once for many requests.

Requests in one call are independent: each has its own time limit, a disconnect cancels only that request, and a call
that fails because of its rows is repeated for each request alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from api.http import deadlines
from serving.contract import BATCH_SIZES
from serving.tf_serving.client import Array, ContractError, NoSignatureError, Prediction

CALLS_IN_FLIGHT: Final = 2
"""Calls of one kind: while the model server computes one, the answers of the other are encoded."""

MAX_CALL_ROWS: Final = BATCH_SIZES[-1]

LARGEST_SMALL_ROWS: Final = 64

LARGE_AT_ONCE: Final = 2
"""Larger requests of a model in its queues at a time, so that small requests never wait behind more of them."""


class Kind(NamedTuple):
    """What requests must have in common to share a call. ``version`` None: the newest."""

    model: str
    signature: str
    version: int | None


Rows = Array | Sequence[int]
"""Rows of a model's input. Seeds stand for their noise, which is computed when the call is sent."""

RunCall = Callable[[Kind, Sequence[Rows], float], Awaitable[Prediction]]
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
    """A call in flight for several requests."""

    requests: list[QueuedRequest]
    rows: int
    task: "asyncio.Task[None] | None" = None


class RequestQueue:
    """The requests of one kind, first in, first out."""

    def __init__(self, kind: Kind, run_call: RunCall) -> None:
        self._kind = kind
        self._run_call = run_call
        self._waiting: deque[QueuedRequest] = deque()
        self._in_flight: set[Call] = set()
        self._scheduled = False

    @property
    def empty(self) -> bool:
        """Whether no request waits and no call is in flight."""
        return not self._waiting and not self._in_flight

    async def predict(self, rows: Rows) -> Prediction:
        """Returns the outputs for at most MAX_CALL_ROWS ``rows``. Raises ModelServerError."""
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

    def _send(self) -> None:
        """Sends waiting requests as calls, as long as calls may be sent."""
        self._scheduled = False
        while self._may_send():
            call = Call([], 0)
            while self._waiting and call.rows + len(self._waiting[0].rows) <= MAX_CALL_ROWS:
                request = self._waiting.popleft()
                request.call = call
                call.requests.append(request)
                call.rows += len(request.rows)
            self._in_flight.add(call)
            call.task = asyncio.create_task(self._run(call), context=call.requests[0].context)
            call.task.add_done_callback(lambda _, call=call: self._end(call))  # type: ignore[misc]

    def _may_send(self) -> bool:
        """Whether the waiting requests get a call now. A second call has at least as many rows as the first."""
        if not self._waiting or len(self._in_flight) >= CALLS_IN_FLIGHT:
            return False
        rows_in_flight = sum(call.rows for call in self._in_flight)
        return not rows_in_flight or sum(len(one.rows) for one in self._waiting) >= rows_in_flight

    def _end(self, call: Call) -> None:
        """Sends the next call when ``call`` is over. A call can be cancelled before it begins."""
        if call in self._in_flight:
            self._in_flight.remove(call)
            self._send()

    async def _run(self, call: Call) -> None:
        """Makes a call, sends the next one, and gives each request its answer."""
        outcome = await self._outcome(call.requests)
        self._end(call)
        if isinstance(outcome, ContractError) and not isinstance(outcome, NoSignatureError) and len(call.requests) > 1:
            for request in call.requests:  # one of them may be at fault
                _settle([request], await self._outcome([request]))
        else:
            _settle(call.requests, outcome)

    async def _outcome(self, requests: list[QueuedRequest]) -> Prediction | Exception:
        try:
            deadline = max(request.deadline for request in requests)
            return await self._run_call(self._kind, [request.rows for request in requests], deadline)
        except Exception as error:
            return error


class Coalescer:
    """The queues of all kinds."""

    def __init__(self, run_call: RunCall) -> None:
        self._run_call = run_call
        self._queues: dict[Kind, RequestQueue] = {}
        self._large: dict[str, asyncio.Semaphore] = {}

    async def predict(self, kind: Kind, rows: Rows) -> Prediction:
        """Returns the outputs for at most MAX_CALL_ROWS ``rows``. Raises ModelServerError."""
        if len(rows) <= LARGEST_SMALL_ROWS:
            return await self._queued(kind, rows)
        large = self._large.setdefault(kind.model, asyncio.Semaphore(LARGE_AT_ONCE))
        with deadlines.part("turn"):
            await large.acquire()
        try:
            return await self._queued(kind, rows)
        finally:
            large.release()

    async def _queued(self, kind: Kind, rows: Rows) -> Prediction:
        if kind not in self._queues:  # clients name versions, so the unused queues go
            self._queues = {one: queue for one, queue in self._queues.items() if not queue.empty}
            self._queues[kind] = RequestQueue(kind, self._run_call)
        return await self._queues[kind].predict(rows)


def _settle(requests: list[QueuedRequest], outcome: Prediction | Exception) -> None:
    """Gives each request its rows of the outputs, or the error."""
    start = 0
    for request in requests:
        end = start + len(request.rows)
        if not request.answer.done():
            if isinstance(outcome, Exception):
                request.answer.set_exception(outcome)
            else:
                outputs = {name: output[start:end] for name, output in outcome.outputs.items()}
                request.answer.set_result(Prediction(outcome.model, outcome.version, outputs))
        start = end
