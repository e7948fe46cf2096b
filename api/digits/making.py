"""Generates the digits of a request: all of one version, in batches, with labels if the request wants them.

Digits of a kind (``digit``, ``curated``) come from seeds that the index of a version names, and mean nothing in another
version. The seeds are chosen from the index of the newest version, and that version is named in the call.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from api.digits.ink import Pixels
from api.digits.labels import Labels, label
from api.digits.seed_index import SeedIndex
from api.digits.sources import IndexedSeeds
from api.state import GatewayState
from api.telemetry.metrics import Metrics
from api.upstream.coalescing import Rows
from api.upstream.one_version import retry_on_swap
from serving.contract import GENERATOR, IMAGES
from serving.tf_serving.client import Prediction, VersionNotFoundError


@dataclass(frozen=True)
class Digits:
    """Digits of one version.

    Attributes:
        pixels: uint8 [N, 28, 28].
        seeds: their seeds; None if they come from noise.
        labels: their labels; None if the request wants none.
    """

    model: str
    version: int
    pixels: Pixels
    seeds: Sequence[int] | None = None
    labels: Labels | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Model": self.model, "X-Model-Version": str(self.version)}


@dataclass(frozen=True)
class Generation:
    """Digits made from ``rows``: ``first`` is all of them, or the first batch; then ``rest`` yields the others."""

    rows: Rows
    first: Digits
    rest: AsyncGenerator[Digits] | None = None


async def generate(
    state: GatewayState, query: Rows | IndexedSeeds, version: int | None, *, labelled: bool, whole: bool
) -> Generation:
    """Generates all digits, or only the first batch unless ``whole``.

    Args:
        query: seeds, noise float32 [N, 100], or a query for seeds of a kind.
        version: the version that the request names; None means the newest.
        labelled: whether to label the digits.

    Raises ModelServerError, ProblemError.
    """

    async def attempt() -> Generation:
        rows, pinned = await _rows(state, query, version)
        if whole:
            prediction = await state.inference.predict_whole(GENERATOR, rows, version=pinned)
            return Generation(rows, await _digits(state, prediction, rows, labelled))
        batches = _batches(state, rows, pinned, labelled)
        return Generation(rows, await anext(batches), batches)

    return await retry_on_swap(GENERATOR, version, attempt, state.indexes.forget_newest)


async def _rows(state: GatewayState, query: Rows | IndexedSeeds, version: int | None) -> tuple[Rows, int | None]:
    """Returns what to generate the digits from, and the version that has to: seeds of a kind belong to one."""
    if not isinstance(query, IndexedSeeds):
        return query, version
    index = await state.indexes.of(version)
    if index is None:
        raise query.no_index()
    return query.choose(index), index.version


async def _batches(state: GatewayState, rows: Rows, version: int | None, labelled: bool) -> AsyncGenerator[Digits]:
    done = 0
    async with aclosing(state.inference.predict_all(GENERATOR, rows, version=version)) as predictions:
        async for prediction in predictions:
            batch = rows[done : done + len(prediction.outputs[IMAGES])]
            done += len(batch)
            yield await _digits(state, prediction, batch, labelled)


async def _digits(state: GatewayState, prediction: Prediction, rows: Rows, labelled: bool) -> Digits:
    seeds = None if isinstance(rows, np.ndarray) else rows
    labels = None
    if labelled:
        index = None if seeds is None else await _index(state, prediction.version)
        labels = await label(prediction.outputs[IMAGES], seeds, index, state.inference, state.metrics)
    return digits_of(prediction, state.metrics, seeds, labels)


async def _index(state: GatewayState, version: int) -> SeedIndex | None:
    try:
        return await state.indexes.of(version)
    except VersionNotFoundError:  # withdrawn since: the classifier labels all images
        return None


def digits_of(
    prediction: Prediction, metrics: Metrics, seeds: Sequence[int] | None = None, labels: Labels | None = None
) -> Digits:
    """Returns the images of a prediction of the generator, and counts them."""
    pixels: Pixels = prediction.outputs[IMAGES][..., 0]
    metrics.images.labels(str(prediction.version)).inc(len(pixels))
    return Digits(prediction.model, prediction.version, pixels, seeds, labels)
