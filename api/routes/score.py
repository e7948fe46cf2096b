"""POST /score: what the discriminator thinks of images, and what the classifier reads in them."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

import anyio
import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from api import openapi
from api.digits.fit import FITS, FORMATS, Digit, Fit, ImageError, read_digit
from api.formats import answers, images
from api.formats.images import PNG
from api.http import bodies, schemas
from api.http.bodies import JSON
from api.http.deadlines import limit_of, time_limit
from api.http.negotiation import negotiate
from api.http.problems import at_pointer, invalid
from api.http.schemas import ScoreRequest
from api.middleware.keys import charge
from api.settings import Settings
from api.state import StateDep
from api.threads import in_thread
from serving.contract import CLASSIFIER, DISCRIMINATOR, LOGITS, PROBABILITIES
from serving.tf_serving.client import Prediction

router = APIRouter()

MULTIPART: Final = "multipart/form-data"
FIELD: Final = "images"
OPTIONS: Final = {"fit": FITS, "labels": ("false", "true"), "fitted_images": ("false", "true")}
"""The values of each option, the default first. Options are query parameters, members of the JSON, or form fields."""
NO_INK: Final = "no ink was found in the image"

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
                **{
                    name: {"type": "string", "enum": list(values), "default": values[0]}
                    for name, values in OPTIONS.items()
                },
            },
        }
    },
    PNG: openapi.binary(),
}


@router.post(
    "/score",
    summary="Score images",
    description="The discriminator's score of each image. 28×28 pixels as MNIST has them are scored as they are. In any"
    " other image the ink is separated from its background and fitted as MNIST was made: light on dark, into 20×20"
    " pixels, centred by mass. Images come as JSON, as multipart files in the field `images` (PNG, JPEG or WebP), or as"
    " one raw PNG. With `labels` the answer says which digit each image reads as; with `fitted_images` it holds the"
    " 28×28 pixels that were scored. The options are query parameters, or fields of the body, which come first.",
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
async def score(
    request: Request,
    state: StateDep,
    fit: Annotated[Fit, Query(description=schemas.FIT)] = "auto",
    labels: Annotated[bool, Query(description=schemas.SCORE_LABELS)] = False,
    fitted_images: Annotated[bool, Query(description=schemas.FITTED_IMAGES)] = False,
) -> Response:
    negotiate(request, (JSON,))
    media_type = bodies.media_type(request, tuple(_BODY))
    files, options = await _read(request, media_type, state.settings)
    upload = _Upload(files, **{"fit": fit, "labels": labels, "fitted_images": fitted_images, **options})
    with state.admission.images(request, len(upload.files)):
        charge(request, len(upload.files), f"/{FIELD}")
        async with time_limit(limit_of(request, state.settings.request_timeout_s)):
            raw = media_type == PNG
            decode = partial(_read_digits, upload, raw=raw, max_pixels=state.settings.max_image_pixels)
            digits = await in_thread(decode, _DECODING)
            pixels = np.stack([digit.pixels for digit in digits])[..., np.newaxis]
            models = (DISCRIMINATOR, CLASSIFIER) if upload.labels else (DISCRIMINATOR,)
            predict = partial(state.inference.predict_whole, rows=pixels, version=None)
            scored, *read = await asyncio.gather(*(predict(model) for model in models))
            to_encode = pixels.size if upload.fitted_images else 0
            scores = await answers.encode(to_encode, _scores, upload, digits, scored, read)
    state.metrics.count_scores(scored.version, [score["verdict"] for score in scores])
    if read:
        state.metrics.labels.labels("classifier").inc(len(digits))
    answer = {"model": scored.model, "version": scored.version, "scores": scores}
    return Response(orjson.dumps(answer), 200, media_type=JSON)


@dataclass(frozen=True)
class _Upload:
    """What a request holds: image files, and the options."""

    files: list[bytes]
    fit: Fit
    labels: bool
    fitted_images: bool


async def _read(request: Request, media_type: str, settings: Settings) -> tuple[list[bytes], dict[str, Any]]:
    """Returns the files in the body and the options that it sets.

    Raises ProblemError for a body without images or with too many.
    """
    if media_type == PNG:
        return [await request.body()], {}
    if media_type == JSON:
        body = await bodies.read_json(request, ScoreRequest)
        _check_count(len(body.images), settings)
        files = [_from_base64(text, f"/{FIELD}/{index}") for index, text in enumerate(body.images)]
        return files, body.model_dump(include=body.model_fields_set & OPTIONS.keys())
    async with bodies.read_form(request, max_files=10_000, max_fields=1000) as form:
        return await _read_form(list(form.multi_items()), settings)


async def _read_form(
    parts: list[tuple[str, UploadFile | str]], settings: Settings
) -> tuple[list[bytes], dict[str, Any]]:
    images = [part for name, part in parts if name == FIELD]
    options: dict[str, Any] = {}
    for name, part in parts:
        if name in OPTIONS and isinstance(part, str):
            options[name] = _from_form(name, part)
        elif name != FIELD:
            expected = f"only files in the field {FIELD}, and {', '.join(OPTIONS)} are accepted"
            raise invalid(at_pointer(f"/{bodies.escaped(name)}", expected))
    _check_count(len(images), settings)
    return [await _from_part(part, f"/{FIELD}/{index}") for index, part in enumerate(images)], options


async def _from_part(part: UploadFile | str, pointer: str) -> bytes:
    if isinstance(part, UploadFile):
        return await part.read()
    if part.startswith("data:"):
        return _from_base64(part, pointer)
    raise invalid(at_pointer(pointer, "this part is no file: its Content-Disposition has no filename"))


def _from_form(name: str, text: str) -> bool | str:
    values = OPTIONS[name]
    if text not in values:
        raise invalid(at_pointer(f"/{name}", f"should be {' or '.join(values)}"))
    return text if name == "fit" else text == "true"


def _check_count(count: int, settings: Settings) -> None:
    most = settings.max_score_images
    if not 1 <= count <= most:
        raise invalid(at_pointer(f"/{FIELD}", f"{count} images; from 1 to {most} are scored at once"))


def _from_base64(text: str, pointer: str) -> bytes:
    """Returns what base64 holds: also of a data URL, with line breaks, with - and _ (base64url), without padding."""
    try:
        if text[:5].lower() == "data:":
            kind, _, content = text.partition(",")
            if not kind.lower().endswith(";base64"):
                raise invalid(at_pointer(pointer, "a data URL should say ;base64 before its comma"))
            encoded = unquote_to_bytes(content)
        else:
            encoded = text.encode("ascii")
        encoded = encoded.translate(_STANDARD, b" \t\r\n").rstrip(b"=")
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise invalid(at_pointer(pointer, "not base64")) from error


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def _read_digits(upload: _Upload, *, raw: bool, max_pixels: int) -> list[Digit]:
    """Returns the digits in the files, which have ``max_pixels`` together: decoding takes time by the pixel."""
    digits: list[Digit] = []
    for index, file in enumerate(upload.files):
        try:
            formats = ("PNG",) if raw else FORMATS
            digits.append(read_digit(file, max_pixels=max_pixels, formats=formats, fit=upload.fit))
            max_pixels -= digits[-1].sent_pixels
        except ImageError as error:
            raise invalid(at_pointer("" if raw else f"/{FIELD}/{index}", str(error))) from error
    return digits


def _scores(
    upload: _Upload, digits: Sequence[Digit], scored: Prediction, read: Sequence[Prediction]
) -> list[dict[str, Any]]:
    outputs = scored.outputs
    rows = read[0].outputs[PROBABILITIES].tolist() if read else [None] * len(digits)
    columns = outputs[PROBABILITIES].tolist(), outputs[LOGITS].tolist(), rows
    return [_score(upload, *one) for one in zip(digits, *columns, strict=True)]


def _score(
    upload: _Upload, digit: Digit, probability: float, logit: float, digit_probabilities: list[float] | None
) -> dict[str, Any]:
    score: dict[str, Any] = {
        "probability": probability,
        "logit": logit,
        "verdict": None,
        "fitted": digit.fitted,
        "ink": digit.ink,
        "polarity": digit.polarity,
        "box": digit.box,
        "reason": NO_INK,
    }
    if digit_probabilities:
        score |= dict.fromkeys(("digit", "confidence", "digit_probabilities"))
    if digit.ink:
        score |= {"verdict": "real" if probability > 0.5 else "fake", "reason": None}
        if digit_probabilities:
            most = max(digit_probabilities)
            score["digit"], score["confidence"] = digit_probabilities.index(most), round(most, 6)
            score["digit_probabilities"] = [round(one, 6) for one in digit_probabilities]
    if upload.fitted_images:
        score["png"] = base64.b64encode(images.png(digit.pixels)).decode()
    return score
