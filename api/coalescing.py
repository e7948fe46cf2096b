"""Requests that wait anyway share one call to the model server.

Nobody waits for company. A request is sent at once while fewer than CALLS_AT_ONCE calls like it are under way; those
that arrive meanwhile gather, and the first call that comes back sends them all as one. So under load a call's fixed
costs, on both sides, are paid once for many, and a request that is alone pays nothing for the possibility.

Whoever shares a call depends on the others in nothing: each keeps its own deadline, whoever leaves takes nobody along,
and a call that fails for what was asked is made again for each alone.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from serving.client import Array, ContractError, DeadlineError, NoSignatureError, OverloadedError, Prediction
from serving.contract import BATCH_SIZES

CALLS_AT_ONCE: Final = 2
"""While the model server computes one call, the answers of another are encoded."""

MOST_SHARED_ROWS: Final = 64
"""A request of more rows has a call to itself: it would gain little by company, and hold it up."""

MOST_WAITING: Final = 4096
"""Requests of a kind; more are refused, as a model server does whose queue is full."""

_MOST_ROWS: Final = BATCH_SIZES[-1]


class Kind(NamedTuple):
    """What requests must have in common to share a call. ``version`` None: the newest."""

    model: str
    signature: str
    version: int | None


Call = Callable[[Kind, Array, float], Awaitable[Prediction]]
"""Runs a model on some rows within so many seconds. Raises ModelServerError."""


@dataclass(eq=False)
class _Waiting:
    """A request without a call of its own. ``deadline`` is in the time of ``time.monotonic``."""

    rows: Array
    deadline: float
    answer: "asyncio.Future[Prediction]"
    shared: "_Shared | None" = None

    def leave(self, lane: "_Lane") -> None:
        """Goes without an answer; the last one to leave a call ends it."""
        if self.shared is None:
            lane.waiting.remove(self)
            return
        self.shared.awaited -= 1
        if not self.shared.awaited:
            self.shared.task.cancel()


@dataclass
class _Shared:
    """A call on behalf of several. ``awaited``: by how many of them still."""

    awaited: int
    task: "asyncio.Task[None]"


@dataclass
class _Lane:
    """The requests of a kind: how many calls are under way, and who waits for the next one."""

    under_way: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)

    def take_company(self) -> list[_Waiting]:
        """Returns those at the front that fit into one call."""
        company: list[_Waiting] = []
        rows = 0
        while self.waiting and rows + len(self.waiting[0].rows) <= _MOST_ROWS:
            company.append(self.waiting.popleft())
            rows += len(company[-1].rows)
        return company


class Coalescer:
    """Answers requests by ``call``, with as few calls as it can without a wait."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lanes: dict[Kind, _Lane] = {}

    async def ask(self, kind: Kind, rows: Array, timeout_s: float) -> Prediction:
        """Returns the outputs for ``rows``, at most BATCH_SIZES[-1] of them. Raises ModelServerError."""
        if len(rows) > MOST_SHARED_ROWS:
            return await self._call(kind, rows, timeout_s)
        lane = self._lanes.setdefault(kind, _Lane())
        if lane.under_way >= CALLS_AT_ONCE:
            return await _wait(lane, kind, rows, timeout_s)
        lane.under_way += 1
        try:
            return await self._call(kind, rows, timeout_s)
        finally:
            self._came_back(lane, kind)

    def _came_back(self, lane: _Lane, kind: Kind) -> None:
        """Sends those who wait, or notes that nobody does."""
        if lane.waiting:
            company = lane.take_company()
            # In nobody's context: what a shared call does is not one request's doing.
            task = asyncio.create_task(self._answer(kind, company), context=contextvars.Context())
            task.add_done_callback(lambda _: self._came_back(lane, kind))
            shared = _Shared(len(company), task)
            for one in company:
                one.shared = shared
            return
        lane.under_way -= 1
        if not lane.under_way:
            del self._lanes[kind]

    async def _answer(self, kind: Kind, company: list[_Waiting]) -> None:
        """Settles every answer, but for the requests that have left."""
        rows = np.concatenate([one.rows for one in company])
        timeout_s = max(one.deadline for one in company) - time.monotonic()
        try:
            prediction = await self._call(kind, rows, max(0.001, timeout_s))
        except Exception as error:
            if _may_be_one_requests_fault(error) and len(company) > 1:
                await asyncio.gather(*(self._answer(kind, [one]) for one in company))
                return
            for one in company:
                if not one.answer.done():
                    one.answer.set_exception(error)
        else:
            start = 0
            for one in company:
                end = start + len(one.rows)
                if not one.answer.done():
                    outputs = {name: output[start:end] for name, output in prediction.outputs.items()}
                    one.answer.set_result(Prediction(prediction.model, prediction.version, outputs))
                start = end


async def _wait(lane: _Lane, kind: Kind, rows: Array, timeout_s: float) -> Prediction:
    if len(lane.waiting) >= MOST_WAITING:
        raise OverloadedError(kind.model, "QUEUE_FULL", f"{MOST_WAITING} requests wait already")
    loop = asyncio.get_running_loop()
    waiting = _Waiting(rows, time.monotonic() + timeout_s, loop.create_future())
    lane.waiting.append(waiting)
    try:
        async with asyncio.timeout(timeout_s):
            return await waiting.answer
    except TimeoutError as error:
        waiting.leave(lane)
        raise DeadlineError(kind.model, "DEADLINE_EXCEEDED", "a shared call took too long") from error
    except asyncio.CancelledError:
        waiting.leave(lane)
        raise


def _may_be_one_requests_fault(error: Exception) -> bool:
    """Whether a call might succeed without one of those who share it: the server refuses all for the sake of one."""
    return isinstance(error, ContractError) and not isinstance(error, NoSignatureError)
