"""POST /score: what the discriminator thinks of images, and what the classifier reads in them."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import numpy as np
import orjson
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from api import answers, bodies, fit, images, openapi, schemas
from api.bodies import JSON
from api.deadlines import limit_of, time_limit
from api.dependencies import StateDep
from api.fit import Digit, ImageError
from api.images import PNG
from api.keys import charge
from api.labels import Labels
from api.metrics import Metrics
from api.negotiation import negotiate
from api.problems import at_pointer, invalid
from api.schemas import ScoreRequest
from api.settings import Settings
from api.threads import in_thread
from serving.client import Prediction
from serving.contract import CLASSIFIER, DISCRIMINATOR, LOGITS, PROBABILITIES

router = APIRouter()

MULTIPART: Final = "multipart/form-data"
FIELD: Final = "images"
OPTIONS: Final = ("labels", "fitted_images")
"""What else can be asked for, in JSON and as form fields; a raw PNG leaves no room for it."""

_DECODING: Final = anyio.CapacityLimiter(2)
"""How many requests decode at a time: 16 million pixels of 16 bits take 180 MB on the way."""

_BODY: Final[dict[str, Any]] = {
    JSON: openapi.schema_of(ScoreRequest),
    MULTIPART: {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {
                FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
                **{name: {"type": "string", "enum": ["true", "false"], "default": "false"} for name in OPTIONS},
            },
        }
    },
    PNG: openapi.binary(),
}


@router.post(
    "/score",
    summary="Score images",
    description="The discriminator's opinion of each image. 28×28 pixels without colour are scored as they are;"
    " anything else is fitted as MNIST was made: light on dark, the ink into 20×20, centred by mass. Images come as"
    " JSON, as multipart files in the field `images` (PNG, JPEG or WebP), or as one raw PNG. With `labels` the answer"
    " says which digit each image reads as; with `fitted_images` it holds the 28×28 pixels that were scored.",
    responses={
        200: {"model": schemas.ScoreResponse, "description": "The scores, in the order of the images."},
        **openapi.failures(
            *openapi.WITH_BODY,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body(_BODY),
    response_class=Response,
)
async def score(request: Request, state: StateDep) -> Response:
    negotiate(request, (JSON,))
    media_type = bodies.media_type(request, tuple(_BODY))
    upload = await _read(request, media_type, state.settings)
    with state.admission.images(request, len(upload.files)):
        charge(request, len(upload.files), f"/{FIELD}")
        async with time_limit(limit_of(request, state.settings.request_timeout_s)):
            raw = media_type == PNG
            decode = partial(_read_digits, upload.files, raw=raw, max_pixels=state.settings.max_image_pixels)
            digits = await in_thread(decode, _DECODING)
            pixels = np.stack([digit.pixels for digit in digits])[..., np.newaxis]
            models = (DISCRIMINATOR, CLASSIFIER) if upload.labels else (DISCRIMINATOR,)
            predict = partial(state.inference.predict_whole, rows=pixels, version=None)
            scored, *read = await asyncio.gather(*(predict(model) for model in models))
            answer = _answer(scored, digits, state.metrics)
            if read:
                _add_labels(answer, read[0], state.metrics)
            if upload.fitted_images:
                await answers.encode(pixels.size, _add_images, answer, digits)
            return Response(orjson.dumps(answer), 200, media_type=JSON)


@dataclass(frozen=True)
class _Upload:
    """What a body holds: image files, and what is wanted besides their scores."""

    files: list[bytes]
    labels: bool = False
    fitted_images: bool = False


async def _read(request: Request, media_type: str, settings: Settings) -> _Upload:
    """Returns what is in the body. Raises ProblemError for one without or with too many images."""
    if media_type == PNG:
        return _Upload([await request.body()])
    if media_type == JSON:
        wanted = await bodies.read_json(request, ScoreRequest)
        _check_count(len(wanted.images), settings)
        files = [_from_base64(text, index) for index, text in enumerate(wanted.images)]
        return _Upload(files, wanted.labels, wanted.fitted_images)
    async with bodies.read_form(request, max_files=10_000, max_fields=1000) as form:
        uploads, options = [], {}
        for name, part in form.multi_items():
            if name == FIELD and isinstance(part, UploadFile):
                uploads.append(part)
            elif name in OPTIONS and isinstance(part, str):
                options[name] = _from_form(name, part)
            elif name == FIELD:
                detail = "this part is no file: its Content-Disposition has no filename"
                raise invalid(at_pointer(f"/{FIELD}/{len(uploads)}", detail))
            else:
                taken = f"files in the field {FIELD}, and {' and '.join(OPTIONS)}"
                raise invalid(at_pointer(f"/{bodies.escaped(name)}", f"only {taken} are taken"))
        _check_count(len(uploads), settings)
        return _Upload([await part.read() for part in uploads], **options)


def _from_form(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise invalid(at_pointer(f"/{name}", "should be true or false"))
    return text == "true"


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


def _answer(prediction: Prediction, digits: Sequence[Digit], metrics: Metrics) -> dict[str, Any]:
    logits, probabilities = prediction.outputs[LOGITS].tolist(), prediction.outputs[PROBABILITIES].tolist()
    verdicts = ["real" if probability > 0.5 else "fake" for probability in probabilities]
    version = prediction.version
    for verdict in ("real", "fake"):
        metrics.scores.labels(str(version), verdict).inc(verdicts.count(verdict))
    return {
        "model": prediction.model,
        "version": version,
        "scores": [
            {"probability": probability, "logit": logit, "verdict": verdict, "fitted": digit.fitted}
            for probability, logit, verdict, digit in zip(probabilities, logits, verdicts, digits, strict=True)
        ],
    }


def _add_labels(answer: dict[str, Any], prediction: Prediction, metrics: Metrics) -> None:
    probabilities = prediction.outputs[PROBABILITIES]
    labels = Labels(probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1))
    metrics.labels.labels("classifier").inc(len(probabilities))
    for score, (digit, confidence), row in zip(answer["scores"], labels.pairs(), probabilities.tolist(), strict=True):
        score.update(digit=digit, confidence=confidence, digit_probabilities=[round(one, 6) for one in row])


def _add_images(answer: dict[str, Any], digits: Sequence[Digit]) -> None:
    for score, digit in zip(answer["scores"], digits, strict=True):
        score["png"] = base64.b64encode(images.png(digit.pixels)).decode()
