"""POST /generate: digits from seeds, from noise, or from seeds that the server chooses."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from api import answers, bodies, images, openapi, problems, schemas
from api.bodies import JSON
from api.dependencies import InferenceDep, MetricsDep, SettingsDep
from api.images import NPY, PNG, Pixels
from api.inference import Inference, time_budget
from api.metrics import Metrics
from api.negotiation import negotiate
from api.problems import ProblemError
from api.schemas import GenerateRequest
from api.settings import Settings
from api.sources import STREAMED, SeedSource, Source, source_of
from api.zipstream import ZIP
from serving.client import Prediction, VersionNotFoundError
from serving.contract import GENERATOR, IMAGES

router = APIRouter()

FORMATS: Final = (JSON, PNG, ZIP, NPY)

_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Digits:
    """Digits and who made them. ``pixels``: uint8 [N, 28, 28]."""

    model: str
    version: int
    pixels: Pixels

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Model": self.model, "X-Model-Version": str(self.version)}


def digits_of(prediction: Prediction, metrics: Metrics) -> Digits:
    """Returns the generator's answer, counted."""
    pixels: Pixels = prediction.outputs[IMAGES][..., 0]
    metrics.images.labels(str(prediction.version)).inc(len(pixels))
    return Digits(prediction.model, prediction.version, pixels)


@router.post(
    "/generate",
    summary="Make digits",
    description="Digits from seeds, from noise vectors, or from seeds that the server chooses, in the format that"
    " `Accept` prefers: JSON with a PNG for each digit, one PNG (a sheet if there are several digits), a zip of"
    " PNGs, or an `.npy` array, uint8 [N, 28·scale, 28·scale]. Zip and npy are streamed.",
    responses={
        200: {
            "model": schemas.GenerateResponse,
            "description": "The digits, in the order asked for.",
            "content": {PNG: openapi.binary(), ZIP: openapi.binary(), NPY: openapi.binary()},
            "headers": openapi.MODEL_HEADERS
            | {
                "X-Seeds": {
                    "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
                    "description": "With `count`: the first and the last of the seeds, which follow each other.",
                }
            },
        },
        **openapi.failures(
            problems.MALFORMED_REQUEST,
            problems.VERSION_NOT_FOUND,
            problems.NOT_ACCEPTABLE,
            problems.BODY_TOO_LARGE,
            problems.UNSUPPORTED_MEDIA_TYPE,
            problems.INVALID_REQUEST,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body({JSON: openapi.schema_of(GenerateRequest)}),
    response_class=Response,
)
async def generate(request: Request, settings: SettingsDep, inference: InferenceDep, metrics: MetricsDep) -> Response:
    media_type = negotiate(", ".join(request.headers.getlist("accept")), FORMATS)
    bodies.media_type(request, (JSON,))
    wanted = await bodies.read_json(request, GenerateRequest)
    source = source_of(wanted, settings, media_type)
    if media_type in STREAMED:
        return await _streamed(source, wanted, media_type, settings, inference, metrics)
    digits = await _complete(source, wanted.version, settings, inference, metrics)
    size = digits.pixels.size * wanted.scale**2
    if media_type == PNG:
        content = await answers.encode(size, images.png, images.sheet(digits.pixels), wanted.scale)
    else:
        content = await answers.encode(
            size,
            answers.as_json,
            digits.pixels,
            source,
            wanted.scale,
            model=digits.model,
            version=digits.version,
        )
    return Response(content, 200, _headers(digits, source), media_type)


def _headers(digits: Digits, source: Source) -> dict[str, str]:
    headers = {**digits.headers, "Vary": "Accept"}
    if isinstance(source, SeedSource) and source.chosen:
        headers["X-Seeds"] = f"{source.seeds[0]}-{source.seeds[-1]}"
    return headers


async def _complete(
    source: Source, version: int | None, settings: Settings, inference: Inference, metrics: Metrics
) -> Digits:
    """Returns all digits, made by one version.

    If that version is withdrawn halfway, its successor starts from the beginning.
    """
    time_left = time_budget(settings.request_timeout_s)
    for _ in range(_ATTEMPTS):
        try:
            predictions = inference.predict_all(GENERATOR, source.batches(), version=version, time_left=time_left)
            async with aclosing(predictions):
                parts = [digits_of(prediction, metrics) async for prediction in predictions]
            return Digits(parts[0].model, parts[0].version, np.concatenate([part.pixels for part in parts]))
        except VersionNotFoundError:
            if version is not None:
                raise
    raise ProblemError(problems.MODEL_NOT_SERVED, f"{GENERATOR} was replaced {_ATTEMPTS} times meanwhile")


async def _streamed(
    source: Source,
    wanted: GenerateRequest,
    media_type: str,
    settings: Settings,
    inference: Inference,
    metrics: Metrics,
) -> Response:
    """Returns an answer that is made while it is sent.

    The first batch is waited for, so that most failures are problem documents. A later one (the model server
    gone, the version withdrawn) can only break off the answer, which its length, or the zip's missing end,
    tells.
    """
    predictions = inference.predict_all(
        GENERATOR,
        source.batches(),
        version=wanted.version,
        time_left=lambda: settings.request_timeout_s,
    )
    first = digits_of(await anext(predictions), metrics)

    async def batches() -> AsyncIterator[Pixels]:
        async with aclosing(predictions):
            yield first.pixels
            async for prediction in predictions:
                yield digits_of(prediction, metrics).pixels

    headers = _headers(first, source)
    if media_type == ZIP:
        headers["Content-Disposition"] = 'attachment; filename="digits.zip"'
        return StreamingResponse(answers.as_zip(batches(), source, wanted.scale), 200, headers, ZIP)
    headers["Content-Disposition"] = 'attachment; filename="digits.npy"'
    headers["Content-Length"] = str(answers.npy_length(len(source), wanted.scale))
    return StreamingResponse(answers.as_npy(batches(), len(source), wanted.scale), 200, headers, NPY)
