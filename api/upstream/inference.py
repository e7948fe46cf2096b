"""Calls of the model server: measured, shared under load, cut into batches, and of one version for one answer.

A request that is alone is sent at once. While calls are in flight, requests wait, and the next call takes as many as
fit. Requests in one call are independent: each has its own time limit, a disconnect cancels only that request, and a
call that fails because of its rows is repeated for each request alone.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Final, TypeVar

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

CALLS_IN_FLIGHT: Final = 2  # of a queue: while the model server computes one, the answers of the other are encoded
MAX_BATCH: Final = BATCH_SIZES[-1]  # rows in one call
LARGEST_SMALL_ROWS: Final = 64
LARGE_AT_ONCE: Final = 2  # larger requests of a model in its queues, so that small ones never wait behind more of them
SLICE_ROWS: Final = 128  # of a large request in one call: a small request that waits for it waits no longer
_ATTEMPTS: Final = 2

Rows = Array | Sequence[int]  # of a model's input; seeds stand for their noise, computed when the call is sent
Kind = tuple[str, str, int | None]  # model, signature, version (None: the newest): the same for requests in one call

_T = TypeVar("_T")


@dataclass(eq=False)
class QueuedRequest:
    """A request that waits for its outputs. ``context``: its context variables, for its call."""

    rows: Rows
    deadline: float
    answer: asyncio.Future[Prediction]
    context: Context = field(default_factory=copy_context)


@dataclass(eq=False)
class RequestQueue:
    """Requests that can share calls, first in, first out, and the calls in flight by their tasks."""

    kind: Kind
    waiting: deque[QueuedRequest] = field(default_factory=deque)
    in_flight: dict[asyncio.Task[None], list[QueuedRequest]] = field(default_factory=dict)


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
                kind = model, signature, version
                if kind not in self._queues:  # clients name versions, so a new queue drops those that are unused
                    self._queues = {one: used for one, used in self._queues.items() if used.waiting or used.in_flight}
                    self._queues[kind] = RequestQueue(kind)
                queue = self._queues[kind]
                queue.waiting.append(queued)
                loop.call_soon(self._send, queue)  # all requests of this round of the event loop can share the call
                prediction = await queued.answer
            request.versions[model] = prediction.version
            trace.get_current_span().set_attribute(f"digitgan.version.{model}", prediction.version)
            return prediction
        except asyncio.CancelledError:
            request.waited_for = "turn" if queue is None or queued in queue.waiting else "model"
            if queue:
                self._drop_unwanted(queue)
            raise
        finally:
            request.model_seconds += time.perf_counter() - start

    def _send(self, queue: RequestQueue) -> None:
        """Sends waiting requests as calls. A second call has at least as many rows as the first."""
        while queue.waiting and len(queue.in_flight) < CALLS_IN_FLIGHT:
            sent = sum(len(one.rows) for requests in queue.in_flight.values() for one in requests)
            if sum(len(one.rows) for one in queue.waiting) < sent:
                return
            requests: list[QueuedRequest] = []
            left = MAX_BATCH
            while queue.waiting and len(queue.waiting[0].rows) <= left:
                requests.append(queue.waiting.popleft())
                left -= len(requests[-1].rows)
            task = asyncio.create_task(self._run(queue, requests), context=requests[0].context)
            queue.in_flight[task] = requests

    def _drop_unwanted(self, queue: RequestQueue) -> None:
        """Takes cancelled requests out of the queue, and cancels calls that no request waits for."""
        queue.waiting = deque(request for request in queue.waiting if not request.answer.done())
        for task, requests in list(queue.in_flight.items()):
            if all(request.answer.done() for request in requests):
                task.cancel()
                del queue.in_flight[task]
        self._send(queue)

    async def _run(self, queue: RequestQueue, requests: list[QueuedRequest]) -> None:
        """Makes the call of some requests, sends the next one, and gives each request its outputs or the error."""
        outcomes = await self._call(queue.kind, requests)
        refused = isinstance(outcomes[0], ContractError) and not isinstance(outcomes[0], NoSignatureError)
        if refused and len(requests) > 1:  # one of them may be at fault
            outcomes = [(await self._call(queue.kind, [request]))[0] for request in requests]
        task = asyncio.current_task()
        assert task
        del queue.in_flight[task]
        self._send(queue)
        for request, outcome in zip(requests, outcomes, strict=True):
            if request.answer.done():
                continue
            if isinstance(outcome, Exception):
                request.answer.set_exception(outcome)
            else:
                request.answer.set_result(outcome)

    async def _call(self, kind: Kind, requests: list[QueuedRequest]) -> Sequence[Prediction | Exception]:
        """Makes and measures one call. Returns for each request its outputs or the error."""
        model, signature, version = kind
        left_s = max(request.deadline for request in requests) - asyncio.get_running_loop().time()
        parts = [request.rows for request in requests]
        ends = list(accumulate(map(len, parts)))
        metrics, answered_by = self.metrics, NO_VERSION
        start = time.perf_counter()
        try:
            if any(isinstance(part, np.ndarray) for part in parts):
                rows = np.concatenate([one if isinstance(one, np.ndarray) else noise_from_seeds(one) for one in parts])
            else:  # the noise of twenty seeds takes twice as long as that of one
                rows = noise_from_seeds([seed for part in parts for seed in part])
            timeout_s = min(max(left_s, 0.001), 3600)
            with metrics.calls_in_flight.labels(model).track_inprogress():
                made = await self.client.predict(model, rows, signature=signature, version=version, timeout_s=timeout_s)
            answered_by = str(made.version)
            if (model, signature) == (GENERATOR, SIGNATURE):
                metrics.images.labels(answered_by).inc(ends[-1])
        except Exception as error:
            if isinstance(error, ModelServerError) and not isinstance(error, NoSignatureError):  # which is an answer
                metrics.upstream_errors.labels(model, error.code).inc()
            return [error] * len(requests)
        finally:
            metrics.model_seconds.labels(model, answered_by).observe(time.perf_counter() - start)
            metrics.batch_size.labels(model, answered_by).observe(ends[-1])
        predictions = []
        for part, end in zip(parts, ends, strict=True):
            outputs = {name: output[end - len(part) : end] for name, output in made.outputs.items()}
            predictions.append(Prediction(made.model, made.version, outputs))
        return predictions

    async def predict_all(self, model: str, rows: Rows, *, version: int | None) -> AsyncGenerator[Prediction]:
        """Runs ``model`` on ``rows`` (at least one) in slices of SLICE_ROWS, and yields the predictions in order.

        The version that answers the first call answers all. Raises ModelServerError; VersionNotFoundError also if that
        version is withdrawn meanwhile.
        """
        first = await self.predict(model, rows[:SLICE_ROWS], version=version)
        slices = (rows[start : start + SLICE_ROWS] for start in range(SLICE_ROWS, len(rows), SLICE_ROWS))
        others = (self.predict(model, one, version=first.version) for one in slices)
        async with aclosing(in_order(first, others, ahead=1)) as predictions:
            async for prediction in predictions:
                yield prediction

    async def predict_whole(self, model: str, rows: Rows, *, version: int | None) -> Prediction:
        """Returns the outputs of ``model`` for all ``rows``, as ``retry_on_swap`` does. Raises ModelServerError too."""
        if len(rows) <= SLICE_ROWS:
            return await self.predict(model, rows, version=version)

        async def attempt() -> Prediction:
            parts = [one async for one in self.predict_all(model, rows, version=version)]
            outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
            return Prediction(model, parts[0].version, outputs)

        return await retry_on_swap(model, version, attempt)


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

    ``before_retry`` forgets which version is the newest, where that is cached. Raises VersionNotFoundError for the
    version that the request names; ProblemError (503) if successors are withdrawn.
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
