"""Generates the digits of a request: all of one version, in batches, with labels if the request wants them."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import numpy as np

from api.digits.ink import Pixels
from api.http.problems import NO_SEED_INDEX, ProblemError, at_pointer, invalid
from api.http.schemas import GenerateRequest
from api.state import GatewayState
from api.upstream.inference import Rows, retry_on_swap
from serving.contract import CLASSIFIER, GENERATOR, IMAGES, MAX_SEED, NOT_INDEXED, PROBABILITIES
from serving.tf_serving.client import Array, Prediction, VersionNotFoundError


@dataclass(frozen=True)
class Digits:
    """Digits of one version: uint8 [N, 28, 28], without seeds if they come from noise.

    ``labels``, if the request wants them: the digit that each shows, and the confidence of that.
    """

    model: str
    version: int
    pixels: Pixels
    seeds: Sequence[int] | None
    labels: Sequence[tuple[int, float]] | None


@dataclass(frozen=True)
class Generation:
    """Digits made from ``rows``: ``first`` is all of them, or the first batch; then ``rest`` yields the others."""

    rows: Rows
    first: Digits
    rest: AsyncGenerator[Digits] | None = None


def source_of(request: GenerateRequest) -> Rows | GenerateRequest:
    """Returns the seeds or the noise of a request; the request itself if a seed index has to choose its seeds.

    ``count`` means seeds from ``start`` or a random seed on. Raises ProblemError (422) if they go beyond the last one.
    """
    if request.source == "noise":
        return np.array(request.noise, np.float32)
    if request.source == "seeds":
        return request.seeds
    if request.digit is not None or request.curated:
        return request
    first = secrets.randbelow(MAX_SEED + 2 - request.count) if request.start is None else request.start
    if first + request.count > MAX_SEED + 1:
        raise invalid(at_pointer("/start", f"{request.count} seeds from here on would go beyond {MAX_SEED}"))
    return range(first, first + request.count)


async def generate(
    state: GatewayState, source: Rows | GenerateRequest, version: int | None, *, labelled: bool, whole: bool
) -> Generation:
    """Generates the digits of ``source``; the first batch unless ``whole``. Raises ModelServerError, ProblemError."""
    if isinstance(source, GenerateRequest):

        async def attempt() -> Generation:
            index = await state.indexes.of(version)
            if index is None:
                detail = "the generator's version has no index of its seeds"
                fields = ["digit"] * (source.digit is not None) + ["curated"] * source.curated
                raise ProblemError(NO_SEED_INDEX, detail, errors=[at_pointer(f"/{one}", detail) for one in fields])
            return await generate(state, index.choose(source), index.version, labelled=labelled, whole=whole)

        return await retry_on_swap(GENERATOR, version, attempt, state.indexes.forget_newest)
    if whole:
        prediction = await state.inference.predict_whole(GENERATOR, source, version=version)
        return Generation(source, await _digits(state, prediction, source, labelled))
    batches = _batches(state, source, version, labelled)
    return Generation(source, await anext(batches), batches)


async def _batches(state: GatewayState, rows: Rows, version: int | None, labelled: bool) -> AsyncGenerator[Digits]:
    done = 0
    async with aclosing(state.inference.predict_all(GENERATOR, rows, version=version)) as predictions:
        async for prediction in predictions:
            batch = rows[done : done + len(prediction.outputs[IMAGES])]
            done += len(batch)
            yield await _digits(state, prediction, batch, labelled)


async def _digits(state: GatewayState, prediction: Prediction, rows: Rows, labelled: bool) -> Digits:
    images, version = prediction.outputs[IMAGES], prediction.version
    seeds = None if isinstance(rows, np.ndarray) else rows
    labels = await _labels(state, images, seeds, version) if labelled else None
    return Digits(prediction.model, version, images[..., 0], seeds, labels)


async def _labels(
    state: GatewayState, images: Array, seeds: Sequence[int] | None, version: int
) -> list[tuple[int, float]]:
    """Returns the labels of images: from the version's index where it has the seed, else from the classifier."""
    digits, confidences = np.full(len(images), NOT_INDEXED, np.uint8), np.zeros(len(images), np.float32)
    index = None
    if seeds is not None:
        with suppress(VersionNotFoundError):  # withdrawn since: the classifier labels all images
            index = await state.indexes.of(version)
    if index is not None:
        places = np.array(seeds, np.int64)
        inside = places < len(index.digits)
        digits[inside], confidences[inside] = index.digits[places[inside]], index.confidences[places[inside]]
    unknown = np.flatnonzero(digits == NOT_INDEXED)
    if len(unknown):
        answer = await state.inference.predict_whole(CLASSIFIER, images[unknown], version=None)
        probabilities = answer.outputs[PROBABILITIES]
        digits[unknown], confidences[unknown] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rounded = confidences.astype(np.float64).round(6)  # float32 has seven digits
    return list(zip(digits.tolist(), rounded.tolist(), strict=True))
