"""Calls of the model server: measured, shared under load, cut into batches, and of one version for one answer."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np

from api.http import deadlines
from api.http.problems import MODEL_NOT_SERVED, ProblemError
from api.telemetry import observation
from api.telemetry.metrics import NO_VERSION, Metrics
from api.upstream.coalescing import LARGE_AT_ONCE, LARGEST_SMALL_ROWS, RequestQueue, Rows
from serving.contract import GENERATOR, SIGNATURE
from serving.noise import noise_from_seeds
from serving.tf_serving.client import (
    Array,
    ModelClient,
    ModelServerError,
    NoSignatureError,
    Prediction,
    VersionNotFoundError,
)

SLICE_ROWS: Final = 128
"""Rows of a large request in one call: a small request that waits for the call waits no longer."""

_MAX_CALL_S: Final = 3600.0
_ATTEMPTS: Final = 2

_T = TypeVar("_T")


class Kind(NamedTuple):
    """What requests must have in common to share a call. ``version`` None: the newest."""

    model: str
    signature: str
    version: int | None


class Inference:
    """The model server, as the routes use it."""

    def __init__(self, client: ModelClient, metrics: Metrics) -> None:
        self.client = client
        self.metrics = metrics
        self._queues: dict[Kind, RequestQueue] = {}
        self._large: dict[str, asyncio.Semaphore] = {}

    async def predict(self, model: str, rows: Rows, *, signature: str = SIGNATURE, version: int | None) -> Prediction:
        """Runs a signature of ``model`` on at most MAX_BATCH rows. Raises ModelServerError."""
        kind = Kind(model, signature, version)
        answered_by = None
        start = time.perf_counter()
        try:
            if len(rows) <= LARGEST_SMALL_ROWS:
                prediction = await self._queue(kind).predict(rows)
            else:
                large = self._large.setdefault(model, asyncio.Semaphore(LARGE_AT_ONCE))
                with deadlines.part("turn"):
                    await large.acquire()
                try:
                    prediction = await self._queue(kind).predict(rows)
                finally:
                    large.release()
            answered_by = prediction.version
            return prediction
        finally:
            observation.note_call(model, answered_by, time.perf_counter() - start)

    def _queue(self, kind: Kind) -> RequestQueue:
        """Returns the queue of a kind. Clients name versions, so a new queue drops those that are unused."""
        queue = self._queues.get(kind)
        if queue is None:
            self._queues = {one: used for one, used in self._queues.items() if not used.empty}
            queue = self._queues[kind] = RequestQueue(partial(self._call, kind))
        return queue

    async def _call(self, kind: Kind, parts: Sequence[Rows], deadline: float) -> Prediction:
        """Makes one call, for one request or for several, until ``deadline`` in the event loop's time."""
        model, signature, version = kind
        rows = joined(parts)
        left_s = deadline - asyncio.get_running_loop().time()
        in_flight = self.metrics.calls_in_flight.labels(model)
        in_flight.inc()
        answered_by = NO_VERSION
        start = time.perf_counter()
        try:
            timeout_s = min(max(left_s, 0.001), _MAX_CALL_S)
            prediction = await self.client.predict(
                model, rows, signature=signature, version=version, timeout_s=timeout_s
            )
            answered_by = str(prediction.version)
            if kind[:2] == (GENERATOR, SIGNATURE):
                self.metrics.images.labels(answered_by).inc(len(rows))
            return prediction
        except NoSignatureError:
            raise  # the answer to a question, and no failure
        except ModelServerError as error:
            self.metrics.upstream_errors.labels(model, error.code).inc()
            raise
        finally:
            in_flight.dec()
            self.metrics.model_seconds.labels(model, answered_by).observe(time.perf_counter() - start)
            self.metrics.batch_size.labels(model, answered_by).observe(len(rows))

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
