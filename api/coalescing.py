"""Whose turn it is at the model server: small requests share calls, large ones are cut into slices.

A request that is alone is sent at once. While a call like it is under way, those that arrive gather, and are sent as
one call when that comes back, or as soon as they are as many rows: then the model server has its next work before it is
done, and what it has is worth its while. So under load a call's fixed costs, on both sides, are paid once for many, and
a request that is alone pays nothing for the possibility.

Whoever shares a call depends on the others in nothing: each keeps its own deadline, whoever leaves takes nobody along,
and a call that fails for what was asked is made again for each alone.

A request of more than MOST_SHARED_ROWS has calls of its own. So few of these are under way at a time that a small
request never stands behind more than a fraction of a second's work. Large requests take turns, slice by slice, in the
order in which they ask. While small requests come in, a slice has SLICE_ROWS; otherwise it is the whole call.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from serving.client import (
    Array,
    ContractError,
    DeadlineError,
    NoSignatureError,
    Prediction,
    VersionNotFoundError,
)
from serving.contract import BATCH_SIZES

CALLS_AT_ONCE: Final = 2
"""While the model server computes one call, the answers of another are encoded."""

HUNG_S: Final = 1.0
"""A call that takes longer keeps nobody waiting any more: of two model servers, the other may answer."""

MOST_SHARED_ROWS: Final = 64
"""A request of more rows has a call to itself: it would gain little by company, and hold it up."""

SLICE_ROWS: Final = 2 * MOST_SHARED_ROWS
"""What a large request is cut into while small ones come in, which then wait for a slice, as a slice does for them."""

SLICES_AT_ONCE: Final = 2
"""Of each model: the model server has the next one when it is done with one."""

SETTLED_AT_ONCE: Final = 8
"""Answers that are made before the event loop looks for new requests again: each takes about 0.3 ms."""

SMALL_REMEMBERED_S: Final = 1.0
"""A small request counts as there for so long: clients that ask one after the other leave gaps."""

_ATTEMPTS: Final = 3
_MOST_ROWS: Final = BATCH_SIZES[-1]


class NoTurnError(DeadlineError):
    """The time given for a call ran out before it could be made: others had their turn."""


class Kind(NamedTuple):
    """What requests must have in common to share a call. ``version`` None: the newest."""

    model: str
    signature: str
    version: int | None


Rows = Array | Sequence[int]
"""Rows of a model's input. Seeds are the noise that is to be made of them, when their turn comes."""

Call = Callable[[Kind, Sequence[Rows], float], Awaitable[Prediction]]
"""Runs a model on the rows of several requests, in order, within so many seconds. Raises ModelServerError."""


@dataclass(eq=False)
class _Waiting:
    """A request without a call of its own. ``deadline`` is in the time of ``time.monotonic``."""

    rows: Rows
    deadline: float
    answer: "asyncio.Future[Prediction]"
    context: Context = field(default_factory=copy_context)
    shared: "_Shared | None" = None

    def leave(self, lane: "_Lane") -> None:
        """Goes without an answer; the last one to leave a call ends it."""
        if self.shared is None:
            if self in lane.waiting:
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


@dataclass(eq=False)
class _UnderWay:
    """A call of so many rows."""

    rows: int


@dataclass(eq=False)
class _Lane:
    """The requests of a kind: what calls are under way, and who waits for the next one.

    ``looked_at``: it is about to be, when all requests of this round of the event loop are there.
    """

    under_way: set[_UnderWay] = field(default_factory=set)
    waiting: deque[_Waiting] = field(default_factory=deque)
    looked_at: bool = False

    @property
    def sends(self) -> bool:
        """Whether those who wait get a call now."""
        if not self.waiting or not self.under_way:
            return bool(self.waiting)
        if len(self.under_way) >= CALLS_AT_ONCE:
            return False
        return sum(len(one.rows) for one in self.waiting) >= sum(call.rows for call in self.under_way)

    def take_company(self, model: str) -> list[_Waiting]:
        """Returns those at the front that fit into one call. Who has no time left for it is told so, and not sent."""
        company: list[_Waiting] = []
        rows = 0
        now = time.monotonic()
        while self.waiting and rows + len(self.waiting[0].rows) <= _MOST_ROWS:
            one = self.waiting.popleft()
            if one.deadline > now:
                company.append(one)
                rows += len(one.rows)
            elif not one.answer.done():
                one.answer.set_exception(_no_turn(model))
        return company


class Coalescer:
    """Answers requests by ``call``, with as few calls as it can without a wait."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lanes: dict[Kind, _Lane] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._last_small = -math.inf

    async def ask(self, kind: Kind, rows: Rows, timeout_s: float) -> Prediction:
        """Returns the outputs for ``rows``, at most BATCH_SIZES[-1] of them. Raises ModelServerError."""
        if len(rows) > MOST_SHARED_ROWS:
            return await self._in_slices(kind, rows, time.monotonic() + timeout_s)
        self._last_small = time.monotonic()
        lane = self._lanes.setdefault(kind, _Lane())
        if lane.under_way:
            return await self._in_company(lane, kind, rows, timeout_s)
        over = self._begin(lane, kind, len(rows))
        try:
            return await self._call(kind, [rows], timeout_s)
        finally:
            over()

    async def _in_company(self, lane: _Lane, kind: Kind, rows: Rows, timeout_s: float) -> Prediction:
        """Returns the outputs for ``rows`` from a call that others share."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rows, time.monotonic() + timeout_s, loop.create_future())
        lane.waiting.append(waiting)
        if lane.sends and not lane.looked_at:
            lane.looked_at = True
            loop.call_soon(self._send, lane, kind)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.answer
        except TimeoutError as error:
            waiting.leave(lane)
            if waiting.shared is None:
                raise _no_turn(kind.model) from error
            raise DeadlineError(kind.model, "DEADLINE_EXCEEDED", "a shared call took too long") from error
        except asyncio.CancelledError:
            waiting.leave(lane)
            raise

    def _begin(self, lane: _Lane, kind: Kind, rows: int) -> Callable[..., None]:
        """Counts a call as under way until what is returned is called, or for HUNG_S; then it is others' turn."""
        call = _UnderWay(rows)

        def over(_: object = None) -> None:
            hung.cancel()
            if call in lane.under_way:
                lane.under_way.remove(call)
                self._send(lane, kind)

        lane.under_way.add(call)
        hung = asyncio.get_running_loop().call_later(HUNG_S, over)
        return over

    async def _in_slices(self, kind: Kind, rows: Rows, deadline: float) -> Prediction:
        """Returns the outputs for ``rows``, all of one version; if that is withdrawn halfway, all of its successor."""
        for attempt in range(_ATTEMPTS):
            parts: list[Prediction] = []
            start, slice_kind = 0, kind
            try:
                while start < len(rows):
                    async with self._turn(kind.model, deadline):
                        crowded = time.monotonic() - self._last_small < SMALL_REMEMBERED_S
                        end = min(start + SLICE_ROWS, len(rows)) if crowded else len(rows)
                        part = await self._call(slice_kind, [rows[start:end]], deadline - time.monotonic())
                    parts.append(part)
                    start, slice_kind = end, kind._replace(version=part.version)
            except VersionNotFoundError:
                if slice_kind == kind or attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        return _joined(parts)

    @asynccontextmanager
    async def _turn(self, model: str, deadline: float) -> AsyncIterator[None]:
        """Waits until a slice may be sent, and keeps others waiting while the block runs. Raises NoTurnError."""
        turns = self._turns.setdefault(model, asyncio.Semaphore(SLICES_AT_ONCE))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turns.acquire()
        except TimeoutError as error:
            raise _no_turn(model) from error
        try:
            if time.monotonic() >= deadline:
                raise _no_turn(model)
            yield
        finally:
            turns.release()

    def _send(self, lane: _Lane, kind: Kind) -> None:
        """Sends those who wait, if it is their turn."""
        lane.looked_at = False
        while lane.sends:
            company = lane.take_company(kind.model)
            if not company:
                continue
            over = self._begin(lane, kind, sum(len(one.rows) for one in company))
            task = asyncio.create_task(self._answer(kind, company), context=company[0].context)
            task.add_done_callback(over)
            shared = _Shared(len(company), task)
            for one in company:
                one.shared = shared
        if not lane.under_way and not lane.waiting and self._lanes.get(kind) is lane:
            del self._lanes[kind]

    async def _answer(self, kind: Kind, company: list[_Waiting]) -> None:
        """Settles every answer, but for the requests that have left."""
        rows = [one.rows for one in company]
        timeout_s = max(one.deadline for one in company) - time.monotonic()
        try:
            prediction = await self._call(kind, rows, max(0.001, timeout_s))
        except Exception as error:
            if _may_be_one_requests_fault(error) and len(company) > 1:
                alone = [asyncio.create_task(self._answer(kind, [one]), context=one.context) for one in company]
                await asyncio.gather(*alone)
                return
            for one in company:
                if not one.answer.done():
                    one.answer.set_exception(error)
        else:  # the next call is sent before these answers are made
            settling = asyncio.create_task(_settle(company, prediction))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)


async def _settle(company: list[_Waiting], prediction: Prediction) -> None:
    """Gives each its rows, some at a time: what has come in meanwhile waits for a few answers and not for all."""
    start = 0
    for number, one in enumerate(company, 1):
        end = start + len(one.rows)
        if not one.answer.done():
            outputs = {name: output[start:end] for name, output in prediction.outputs.items()}
            one.answer.set_result(Prediction(prediction.model, prediction.version, outputs))
        start = end
        if number % SETTLED_AT_ONCE == 0:
            await asyncio.sleep(0)


def _no_turn(model: str) -> NoTurnError:
    return NoTurnError(model, "NO_TURN", "calls of other requests were first")


def _joined(parts: list[Prediction]) -> Prediction:
    """Returns one answer from those to the parts of its rows, in order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in first.outputs}
    return Prediction(first.model, first.version, outputs)


def _may_be_one_requests_fault(error: Exception) -> bool:
    """Whether a call might succeed without one of those who share it: the server refuses all for the sake of one."""
    return isinstance(error, ContractError) and not isinstance(error, NoSignatureError)
