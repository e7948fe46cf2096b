"""POST /score: what the discriminator thinks of images."""

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np
import orjson
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from api import bodies, fit, openapi, problems, schemas
from api.bodies import JSON
from api.dependencies import InferenceDep, MetricsDep, SettingsDep
from api.fit import Digit, ImageError
from api.images import PNG
from api.inference import MAX_BATCH, time_budget
from api.keys import charge
from api.metrics import Metrics
from api.negotiation import negotiate
from api.problems import at_pointer, invalid
from api.schemas import ScoreRequest
from api.settings import Settings
from serving.client import Prediction
from serving.contract import DISCRIMINATOR, LOGITS, PROBABILITIES

router = APIRouter()

MULTIPART: Final = "multipart/form-data"
FIELD: Final = "images"

_DECODING: Final = anyio.CapacityLimiter(2)
"""How many requests decode at a time: 16 million pixels of 16 bits take 180 MB on the way."""

_BODY: Final[dict[str, Any]] = {
    JSON: openapi.schema_of(ScoreRequest),
    MULTIPART: {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
        }
    },
    PNG: openapi.binary(),
}


@router.post(
    "/score",
    summary="Score images",
    description="The discriminator's opinion of each image. 28×28 pixels without colour are scored as they are;"
    " anything else is fitted as MNIST was made: light on dark, the ink into 20×20, centred by mass. Images come as"
    " JSON, as multipart files in the field `images` (PNG, JPEG or WebP), or as one raw PNG.",
    responses={
        200: {"model": schemas.ScoreResponse, "description": "The scores, in the order of the images."},
        **openapi.failures(
            problems.MALFORMED_REQUEST,
            problems.NOT_ACCEPTABLE,
            problems.BODY_TOO_LARGE,
            problems.UNSUPPORTED_MEDIA_TYPE,
            problems.INVALID_REQUEST,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body(_BODY),
    response_class=Response,
)
async def score(request: Request, settings: SettingsDep, inference: InferenceDep, metrics: MetricsDep) -> Response:
    negotiate(", ".join(request.headers.getlist("accept")), (JSON,))
    media_type = bodies.media_type(request, tuple(_BODY))
    files = await _files(request, media_type, settings)
    charge(request, len(files), f"/{FIELD}")
    raw = media_type == PNG
    read = partial(_read_digits, files, raw=raw, max_pixels=settings.max_image_pixels)
    digits = await anyio.to_thread.run_sync(read, limiter=_DECODING)
    pixels = np.stack([digit.pixels for digit in digits])[..., np.newaxis]
    batches = (pixels[start : start + MAX_BATCH] for start in range(0, len(pixels), MAX_BATCH))
    predictions = [
        prediction
        async for prediction in inference.predict_all(
            DISCRIMINATOR, batches, version=None, time_left=time_budget(settings.request_timeout_s)
        )
    ]
    return Response(orjson.dumps(_answer(predictions, digits, metrics)), 200, media_type=JSON)


async def _files(request: Request, media_type: str, settings: Settings) -> list[bytes]:
    """Returns the image files in the body. Raises ProblemError for a body without or with too many of them."""
    if media_type == PNG:
        return [await request.body()]
    if media_type == JSON:
        encoded = (await bodies.read_json(request, ScoreRequest)).images
        _check_count(len(encoded), settings)
        return [_from_base64(text, index) for index, text in enumerate(encoded)]
    bodies.check_charset(request)
    async with request.form(max_files=10_000, max_fields=10) as form:
        parts = form.multi_items()
        for name, part in parts:
            if name != FIELD or not isinstance(part, UploadFile):
                raise invalid(at_pointer(f"/{bodies.escaped(name)}", f"only files in the field {FIELD} are taken"))
        _check_count(len(parts), settings)
        return [await part.read() for _, part in parts if isinstance(part, UploadFile)]


def _check_count(count: int, settings: Settings) -> None:
    most = settings.max_score_images
    if not 1 <= count <= most:
        raise invalid(at_pointer(f"/{FIELD}", f"{count} images; from 1 to {most} are scored at once"))


def _from_base64(text: str, index: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(at_pointer(f"/{FIELD}/{index}", "not base64")) from error


def _read_digits(files: Sequence[bytes], *, raw: bool, max_pixels: int) -> list[Digit]:
    """Returns the digits in ``files``, which have ``max_pixels`` together: decoding takes time by the pixel."""
    digits: list[Digit] = []
    for index, file in enumerate(files):
        try:
            formats = ("PNG",) if raw else fit.FORMATS
            digits.append(fit.read_digit(file, max_pixels=max_pixels, formats=formats))
            max_pixels -= digits[-1].sent_pixels
        except ImageError as error:
            raise invalid(at_pointer("" if raw else f"/{FIELD}/{index}", str(error))) from error
    return digits


def _answer(predictions: Sequence[Prediction], digits: Sequence[Digit], metrics: Metrics) -> dict[str, Any]:
    logits = np.concatenate([prediction.outputs[LOGITS] for prediction in predictions]).tolist()
    probabilities = np.concatenate([prediction.outputs[PROBABILITIES] for prediction in predictions]).tolist()
    verdicts = ["real" if probability > 0.5 else "fake" for probability in probabilities]
    version = predictions[0].version
    for verdict in ("real", "fake"):
        metrics.scores.labels(str(version), verdict).inc(verdicts.count(verdict))
    return {
        "model": predictions[0].model,
        "version": version,
        "scores": [
            {"probability": probability, "logit": logit, "verdict": verdict, "fitted": digit.fitted}
            for probability, logit, verdict, digit in zip(probabilities, logits, verdicts, digits, strict=True)
        ],
    }
