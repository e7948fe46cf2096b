"""Calls of the model server, measured, and cut into batches that one version answers."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

import numpy as np

from api import observation
from api.coalescing import Coalescer, Kind, Rows
from api.deadlines import TimeLeft
from api.metrics import Metrics
from serving.client import Array, ModelClient, ModelServerError, NoSignatureError, Prediction
from serving.contract import BATCH_SIZES, SIGNATURE, SIGNATURES
from serving.noise import noise_from_seeds

MAX_BATCH: Final = BATCH_SIZES[-1]


class Inference:
    """The model server, as the routes use it."""

    def __init__(self, client: ModelClient, metrics: Metrics) -> None:
        self.client = client
        self._metrics = metrics
        self._coalescer = Coalescer(self._call)

    async def predict(
        self, model: str, rows: Rows, *, signature: str = SIGNATURE, version: int | None, timeout_s: float
    ) -> Prediction:
        """Runs a signature of ``model`` on at most MAX_BATCH rows. Raises ModelServerError.

        Under load, requests share calls.
        """
        prediction = None
        start = time.perf_counter()
        try:
            prediction = await self._coalescer.ask(Kind(model, signature, version), rows, timeout_s)
            return prediction
        finally:
            answered_by = prediction.version if prediction else None
            observation.note_call(model, answered_by, time.perf_counter() - start)

    async def _call(self, kind: Kind, parts: Sequence[Rows], timeout_s: float) -> Prediction:
        """Makes one call, for one request or for several."""
        model, signature, version = kind
        rows = joined(parts)
        inputs = {SIGNATURES[model, signature].input.name: rows}
        in_flight = self._metrics.calls_in_flight.labels(model)
        in_flight.inc()
        prediction = None
        start = time.perf_counter()
        try:
            prediction = await self.client.predict(
                model, inputs, signature=signature, version=version, timeout_s=timeout_s
            )
            return prediction
        except NoSignatureError:
            raise  # the answer to a question, and no failure
        except ModelServerError as error:
            self._metrics.upstream_errors.labels(model, error.code).inc()
            raise
        finally:
            in_flight.dec()
            seconds = time.perf_counter() - start
            self._metrics.observe_call(model, prediction.version if prediction else None, len(rows), seconds)

    async def predict_all(
        self, model: str, batches: Iterator[Rows], *, version: int | None, time_left: TimeLeft
    ) -> AsyncGenerator[Prediction]:
        """Runs ``model`` on each of ``batches`` (at least one) and yields the predictions in order.

        One version answers all: those after the first ask for the version that answered the first, even where
        a newer one has been swapped in since. While the caller works on a prediction, the next batch is under
        way.

        Raises ModelServerError; VersionNotFoundError also if that version is withdrawn meanwhile; OutOfTimeError if
        no time is left before the next one.
        """
        prediction = await self.predict(model, next(batches), version=version, timeout_s=time_left())
        for rows in batches:
            ahead = asyncio.create_task(self.predict(model, rows, version=prediction.version, timeout_s=time_left()))
            try:
                yield prediction
                prediction = await ahead
            finally:  # also where the caller stops early
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        yield prediction


def joined(parts: Sequence[Rows]) -> Array:
    """Returns the rows of all parts. The noise of twenty seeds takes twice as long as that of one."""
    if not any(isinstance(part, np.ndarray) for part in parts):
        return noise_from_seeds([seed for part in parts for seed in part])
    arrays = [part if isinstance(part, np.ndarray) else noise_from_seeds(part) for part in parts]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
