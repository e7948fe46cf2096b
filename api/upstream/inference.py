"""Calls of the model server: measured, shared under load, cut into batches, and of one version for one answer.

A request that is alone is sent at once. While calls are in flight, requests wait, and the next call takes as many as
fit. So under load the fixed costs of a call are paid once for many requests.

Requests in one call are independent: each has its own time limit, a disconnect cancels only that request, and a call
that fails because of its rows is repeated for each request alone.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np
from opentelemetry import trace

from api.http.current_request import current
from api.http.problems import MODEL_NOT_SERVED, ProblemError
from api.telemetry.metrics import NO_VERSION, Metrics
from serving.contract import BATCH_SIZES, GENERATOR, SIGNATURE
from serving.noise import noise_from_seeds
from serving.tf_serving.client import (
    Array,
    ContractError,
    ModelClient,
    ModelServerError,
    NoSignatureError,
    Prediction,
    VersionNotFoundError,
)

CALLS_IN_FLIGHT: Final = 2
"""Calls of one queue: while the model server computes one, the answers of the other are encoded."""

MAX_BATCH: Final = BATCH_SIZES[-1]
"""Rows in one call."""

LARGEST_SMALL_ROWS: Final = 64

LARGE_AT_ONCE: Final = 2
"""Larger requests of a model in its queues at a time, so that small requests never wait behind more of them."""

SLICE_ROWS: Final = 128
"""Rows of a large request in one call: a small request that waits for the call waits no longer."""

_MAX_CALL_S: Final = 3600.0
_ATTEMPTS: Final = 2

Rows = Array | Sequence[int]
"""Rows of a model's input. Seeds stand for their noise, which is computed when the call is sent."""

_T = TypeVar("_T")


class Kind(NamedTuple):
    """What requests must have in common to share a call. ``version`` None: the newest."""

    model: str
    signature: str
    version: int | None


@dataclass(eq=False)
class QueuedRequest:
    """A request that waits for its outputs. ``context``: its context variables, for its call."""

    rows: Rows
    deadline: float
    answer: "asyncio.Future[Prediction]"
    context: Context = field(default_factory=copy_context)
    call: "Call | None" = None


@dataclass(eq=False)
class Call:
    """A call for several requests."""

    requests: list[QueuedRequest]
    rows: int = 0
    task: "asyncio.Task[None] | None" = None


@dataclass(eq=False)
class RequestQueue:
    """Requests that can share calls, first in, first out. ``scheduled``: they are sent in this round of the loop."""

    kind: Kind
    waiting: deque[QueuedRequest] = field(default_factory=deque)
    in_flight: set[Call] = field(default_factory=set)
    scheduled: bool = False


class Inference:
    """The model server, as the routes use it."""

    def __init__(self, client: ModelClient, metrics: Metrics) -> None:
        self.client = client
        self.metrics = metrics
        self._queues: dict[Kind, RequestQueue] = {}
        self._large: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LARGE_AT_ONCE))

    async def predict(self, model: str, rows: Rows, *, signature: str = SIGNATURE, version: int | None) -> Prediction:
        """Runs a signature of ``model`` on at most MAX_BATCH rows. Raises ModelServerError."""
        loop = asyncio.get_running_loop()
        request = current.get()
        queued = QueuedRequest(rows, request.deadline, loop.create_future())
        queue: RequestQueue | None = None
        start = time.perf_counter()
        try:
            async with self._large[model] if len(rows) > LARGEST_SMALL_ROWS else nullcontext():
                kind = Kind(model, signature, version)
                if kind not in self._queues:  # clients name versions, so a new queue drops those that are unused
                    self._queues = {one: used for one, used in self._queues.items() if used.waiting or used.in_flight}
                    self._queues[kind] = RequestQueue(kind)
                queue = self._queues[kind]
                queue.waiting.append(queued)
                if not queue.scheduled:  # all requests of this round of the event loop can share the call
                    queue.scheduled = True
                    loop.call_soon(self._send, queue)
                prediction = await queued.answer
            request.versions[model] = prediction.version
            trace.get_current_span().set_attribute(f"digitgan.version.{model}", prediction.version)
            return prediction
        except asyncio.CancelledError:
            request.waited_for = "model" if queued.call else "turn"
            if queue:
                self._cancel(queue, queued)
            raise
        finally:
            queued.call = None  # Without the cycle the outputs are freed at once.
            request.model_seconds += time.perf_counter() - start

    def _send(self, queue: RequestQueue) -> None:
        """Sends waiting requests as calls. A second call has at least as many rows as the first."""
        queue.scheduled = False
        while queue.waiting and len(queue.in_flight) < CALLS_IN_FLIGHT:
            if sum(len(one.rows) for one in queue.waiting) < sum(call.rows for call in queue.in_flight):
                return
            call = Call([])
            while queue.waiting and call.rows + len(queue.waiting[0].rows) <= MAX_BATCH:
                request = queue.waiting.popleft()
                request.call = call
                call.requests.append(request)
                call.rows += len(request.rows)
            queue.in_flight.add(call)
            call.task = asyncio.create_task(self._run(queue, call), context=call.requests[0].context)

    def _cancel(self, queue: RequestQueue, request: QueuedRequest) -> None:
        """Takes a request out of the queue, or ends its call if no other request wants the outputs."""
        call = request.call
        if call is None:
            queue.waiting.remove(request)
        elif call.task and all(one.answer.done() for one in call.requests):
            call.task.cancel()
            call.task = None  # Without the cycle the rows are freed at once.
            queue.in_flight.discard(call)
            self._send(queue)

    async def _run(self, queue: RequestQueue, call: Call) -> None:
        """Makes and measures a call, and sends the next one. Gives each request its rows, or the error."""
        model, signature, version = queue.kind
        left_s = max(request.deadline for request in call.requests) - asyncio.get_running_loop().time()
        metrics, answered_by = self.metrics, NO_VERSION
        in_flight = metrics.calls_in_flight.labels(model)
        in_flight.inc()
        start = time.perf_counter()
        outcome: Prediction | Exception
        try:
            rows = joined([request.rows for request in call.requests])
            timeout_s = min(max(left_s, 0.001), _MAX_CALL_S)
            outcome = await self.client.predict(model, rows, signature=signature, version=version, timeout_s=timeout_s)
            answered_by = str(outcome.version)
            if (model, signature) == (GENERATOR, SIGNATURE):
                metrics.images.labels(answered_by).inc(call.rows)
        except Exception as error:
            outcome = error
            if isinstance(error, ModelServerError) and not isinstance(error, NoSignatureError):  # which is an answer
                metrics.upstream_errors.labels(model, error.code).inc()
        finally:
            in_flight.dec()
            metrics.model_seconds.labels(model, answered_by).observe(time.perf_counter() - start)
            metrics.batch_size.labels(model, answered_by).observe(call.rows)
        queue.in_flight.discard(call)
        self._send(queue)
        if isinstance(outcome, ContractError) and not isinstance(outcome, NoSignatureError) and len(call.requests) > 1:
            for request in call.requests:  # one of them may be at fault
                await self._run(queue, Call([request], len(request.rows)))
            return
        end = 0
        for request in call.requests:
            start_row, end = end, end + len(request.rows)
            if request.answer.done():
                continue
            if isinstance(outcome, Exception):
                request.answer.set_exception(outcome)
            else:
                outputs = {name: output[start_row:end] for name, output in outcome.outputs.items()}
                request.answer.set_result(Prediction(outcome.model, outcome.version, outputs))

    async def predict_all(self, model: str, rows: Rows, *, version: int | None) -> AsyncGenerator[Prediction]:
        """Runs ``model`` on ``rows`` (at least one) in slices of SLICE_ROWS, and yields the predictions in order.

        One version answers all: the later calls name the version that answered the first, also where a newer one has
        been swapped in since. While the caller works on a prediction, the next one is on its way.

        Raises ModelServerError; VersionNotFoundError also if that version is withdrawn meanwhile.
        """
        first = await self.predict(model, rows[:SLICE_ROWS], version=version)
        slices = (rows[start : start + SLICE_ROWS] for start in range(SLICE_ROWS, len(rows), SLICE_ROWS))
        others = (self.predict(model, one, version=first.version) for one in slices)
        async with aclosing(in_order(first, others, ahead=1)) as predictions:
            async for prediction in predictions:
                yield prediction

    async def predict_whole(self, model: str, rows: Rows, *, version: int | None) -> Prediction:
        """Returns the outputs of ``model`` for all ``rows``, also if the model is swapped meanwhile: see retry_on_swap.

        Raises ModelServerError, ProblemError.
        """
        if len(rows) <= SLICE_ROWS:
            return await self.predict(model, rows, version=version)

        async def attempt() -> Prediction:
            parts = [one async for one in self.predict_all(model, rows, version=version)]
            first = parts[0]
            outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in first.outputs}
            return Prediction(first.model, first.version, outputs)

        return await retry_on_swap(model, version, attempt)


def joined(parts: Sequence[Rows]) -> Array:
    """Returns the rows of all parts. The noise of twenty seeds takes twice as long as that of one."""
    if not any(isinstance(part, np.ndarray) for part in parts):
        return noise_from_seeds([seed for part in parts for seed in part])
    return np.concatenate([part if isinstance(part, np.ndarray) else noise_from_seeds(part) for part in parts])


async def in_order(first: _T, others: Iterator[Coroutine[None, None, _T]], ahead: int) -> AsyncGenerator[_T]:
    """Yields ``first`` and then what each of ``others`` returns; ``ahead`` of them run while the caller works."""
    tasks = deque(asyncio.create_task(one) for one in islice(others, ahead))
    try:
        yield first
        while tasks:
            result = await tasks[0]
            tasks.popleft()
            tasks.extend(asyncio.create_task(one) for one in islice(others, 1))
            yield result
    finally:  # also where the caller stops early
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def retry_on_swap(
    model: str,
    version: int | None,
    attempt: Callable[[], Awaitable[_T]],
    before_retry: Callable[[], None] = lambda: None,
) -> _T:
    """Returns what ``attempt`` returns. If a version that answers is withdrawn meanwhile, its successor starts again.

    Args:
        model, version: what the request names; version None means the newest.
        attempt: makes the whole answer, by one version of each model.
        before_retry: forgets which version is the newest, where that is cached.

    Raises VersionNotFoundError for the version that the request names; ProblemError (503) if successors are withdrawn.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except VersionNotFoundError as error:
            if version is not None and error.model == model:
                raise
            replaced = error.model
            before_retry()
    raise ProblemError(MODEL_NOT_SERVED, f"{replaced} was replaced {_ATTEMPTS} times meanwhile")
