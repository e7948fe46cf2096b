"""Calls of the model server, measured, and cut into batches that one version answers."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import numpy as np

from api.telemetry import observation
from api.telemetry.metrics import Metrics
from api.upstream.coalescing import Coalescer, Kind, Rows
from api.upstream.one_version import retry_on_swap
from serving.contract import BATCH_SIZES, SIGNATURE, SIGNATURES
from serving.noise import noise_from_seeds
from serving.tf_serving.client import Array, ModelClient, ModelServerError, NoSignatureError, Prediction

MAX_BATCH: Final = BATCH_SIZES[-1]

SLICE_ROWS: Final = 128
"""Rows of a large request in one call: a small request that waits for the call waits no longer."""

_MAX_CALL_S: Final = 3600.0


class Inference:
    """The model server, as the routes use it."""

    def __init__(self, client: ModelClient, metrics: Metrics) -> None:
        self.client = client
        self._metrics = metrics
        self._coalescer = Coalescer(self._call)

    async def predict(self, model: str, rows: Rows, *, signature: str = SIGNATURE, version: int | None) -> Prediction:
        """Runs a signature of ``model`` on at most MAX_BATCH rows. Raises ModelServerError.

        Under load, requests share calls.
        """
        prediction = None
        start = time.perf_counter()
        try:
            prediction = await self._coalescer.predict(Kind(model, signature, version), rows)
            return prediction
        finally:
            answered_by = prediction.version if prediction else None
            observation.note_call(model, answered_by, time.perf_counter() - start)

    async def _call(self, kind: Kind, parts: Sequence[Rows], deadline: float) -> Prediction:
        """Makes one call, for one request or for several, until ``deadline`` in the event loop's time."""
        model, signature, version = kind
        rows = joined(parts)
        inputs = {SIGNATURES[model, signature].input.name: rows}
        left_s = deadline - asyncio.get_running_loop().time()
        in_flight = self._metrics.calls_in_flight.labels(model)
        in_flight.inc()
        prediction = None
        start = time.perf_counter()
        try:
            timeout_s = min(max(left_s, 0.001), _MAX_CALL_S)
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

    async def predict_all(self, model: str, rows: Rows, *, version: int | None) -> AsyncGenerator[Prediction]:
        """Runs ``model`` on ``rows`` (at least one) in slices of SLICE_ROWS, and yields the predictions in order.

        One version answers all: the later calls name the version that answered the first, also where a newer one has
        been swapped in since. While the caller works on a prediction, the next batch is on its way.

        Raises ModelServerError; VersionNotFoundError also if that version is withdrawn meanwhile.
        """
        prediction = await self.predict(model, rows[:SLICE_ROWS], version=version)
        for start in range(SLICE_ROWS, len(rows), SLICE_ROWS):
            batch = rows[start : start + SLICE_ROWS]
            ahead = asyncio.create_task(self.predict(model, batch, version=prediction.version))
            try:
                yield prediction
                prediction = await ahead
            finally:  # also where the caller stops early
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        yield prediction

    async def predict_whole(self, model: str, rows: Rows, *, version: int | None) -> Prediction:
        """Returns the outputs of ``model`` for all ``rows``, also if the model is swapped meanwhile: see retry_on_swap.

        Raises ModelServerError, ProblemError.
        """

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
    arrays = [part if isinstance(part, np.ndarray) else noise_from_seeds(part) for part in parts]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
