"""POST /score: what the discriminator thinks of images, and what the classifier reads in them."""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from api import openapi
from api.digits.fit import FORMATS, Digit, ImageError, read_digit
from api.formats import images
from api.http import bodies
from api.http.current_request import time_limit
from api.http.problems import at_pointer, invalid
from api.http.schemas import ScoreOptions, ScoreRequest, ScoreResponse
from api.state import GatewayState
from api.threads import in_thread_if_large
from serving.contract import CLASSIFIER, DISCRIMINATOR, LOGITS, PROBABILITIES
from serving.tf_serving.client import Prediction

router = APIRouter(route_class=bodies.RouteWithBody)

FIELD: Final = "images"
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")  # from base64url
_DECODING: Final = ThreadPoolExecutor(2)  # decodes images: 16 million pixels of 16 bits take 180 MB on the way
_FILES: Final = {"type": "array", "minItems": 1, "items": openapi.BINARY["schema"]}
_BODY: Final[dict[str, Any]] = {
    bodies.JSON: openapi.schema_of(ScoreRequest),
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {FIELD: _FILES, **ScoreOptions.model_json_schema()["properties"]},
        }
    },
    images.PNG: openapi.BINARY,
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
        200: {"model": ScoreResponse, "description": "The scores, in the order of the images."},
        **openapi.failures(*openapi.WITH_BODY, *openapi.UPSTREAM),
    },
    openapi_extra=openapi.body(_BODY),
    response_class=Response,
)
async def score(request: Request, options: Annotated[ScoreOptions, Query()]) -> Response:
    state: GatewayState = request.state.gateway
    bodies.negotiate(request, (bodies.JSON,))
    media_type = bodies.media_type(request, tuple(_BODY))
    files, in_body = await _read(request, media_type, state.settings.max_score_images)
    options = options.model_copy(update=in_body)
    with state.admission.images(request, len(files), f"/{FIELD}"):
        async with time_limit(request):
            decode = partial(_read_digits, files, options, media_type == images.PNG, state.settings.max_image_pixels)
            digits = await asyncio.get_running_loop().run_in_executor(_DECODING, decode)
            pixels = np.stack([digit.pixels for digit in digits])[..., np.newaxis]
            models = (DISCRIMINATOR, CLASSIFIER) if options.labels else (DISCRIMINATOR,)
            predict = partial(state.inference.predict_whole, rows=pixels, version=None)
            scored, *read = await asyncio.gather(*(predict(model) for model in models))
            to_encode = pixels.size if options.fitted_images else 0
            scores = await in_thread_if_large(to_encode, partial(_scores, options, digits, scored, read))
    state.metrics.count_scores(scored.version, [score["verdict"] for score in scores])
    answer = {"model": scored.model, "version": scored.version, "scores": scores}
    return Response(orjson.dumps(answer), 200, media_type=bodies.JSON)


async def _read(request: Request, media_type: str, max_images: int) -> tuple[list[bytes], dict[str, Any]]:
    """Returns the files in the body and the options that it sets. Raises ProblemError."""
    if media_type == images.PNG:
        return [await request.body()], {}
    if media_type == bodies.JSON:
        body = await bodies.read_json(request, ScoreRequest)
        _check_count(len(body.images), max_images)
        files = [_from_base64(text, f"/{FIELD}/{index}") for index, text in enumerate(body.images)]
        return files, body.model_dump(include=body.model_fields_set, exclude={FIELD})
    async with bodies.read_form(request, max_files=10_000, max_fields=1000) as form:
        names = ScoreOptions.model_fields
        texts = {name: part for name, part in form.multi_items() if name in names and isinstance(part, str)}
        if unknown := [name for name in form if name != FIELD and name not in texts]:
            expected = f"only files in the field {FIELD}, and {', '.join(names)} are accepted"
            raise invalid(*(at_pointer(f"/{bodies.escaped(name)}", expected) for name in unknown[:20]))
        options = bodies.validated(ScoreOptions, texts)
        parts = form.getlist(FIELD)
        _check_count(len(parts), max_images)
        files = [await _from_part(part, f"/{FIELD}/{index}") for index, part in enumerate(parts)]
        return files, options.model_dump(exclude_unset=True)


def _check_count(count: int, most: int) -> None:
    """Before the images are decoded: half a million empty ones would take a second."""
    if not 1 <= count <= most:
        raise invalid(at_pointer(f"/{FIELD}", f"{count} images; from 1 to {most} are scored at once"))


async def _from_part(part: UploadFile | str, pointer: str) -> bytes:
    if isinstance(part, UploadFile):
        return await part.read()
    if part.startswith("data:"):
        return _from_base64(part, pointer)
    raise invalid(at_pointer(pointer, "this part is no file: its Content-Disposition has no filename"))


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


def _read_digits(files: list[bytes], options: ScoreOptions, raw: bool, max_pixels: int) -> list[Digit]:
    """Returns the digits in the files, which have ``max_pixels`` together: decoding takes time by the pixel."""
    digits: list[Digit] = []
    for index, file in enumerate(files):
        try:
            formats = ("PNG",) if raw else FORMATS
            digits.append(read_digit(file, max_pixels=max_pixels, formats=formats, fit=options.fit))
            max_pixels -= digits[-1].sent_pixels
        except ImageError as error:
            raise invalid(at_pointer("" if raw else f"/{FIELD}/{index}", str(error))) from error
    return digits


def _scores(
    options: ScoreOptions, digits: list[Digit], scored: Prediction, read: list[Prediction]
) -> list[dict[str, Any]]:
    """Returns the entries of the answer. ``read``: what the classifier says, if the request asks for labels."""
    entries: list[dict[str, Any]] = []
    logits = scored.outputs[LOGITS].tolist()
    for place, (digit, probability) in enumerate(zip(digits, scored.outputs[PROBABILITIES].tolist(), strict=True)):
        verdict = ("real" if probability > 0.5 else "fake") if digit.ink else None
        entry = {
            "probability": probability,
            "logit": logits[place],
            "verdict": verdict,
            "fitted": digit.fitted,
            "ink": digit.ink,
            "polarity": digit.polarity,
            "box": digit.box,
            "reason": None if digit.ink else "no ink was found in the image",
        }
        if read:
            shares = read[0].outputs[PROBABILITIES][place]
            rounded = [round(share, 6) for share in shares.tolist()]
            found = (int(shares.argmax()), max(rounded), rounded) if digit.ink else (None, None, None)
            entry |= dict(zip(("digit", "confidence", "digit_probabilities"), found, strict=True))
        if options.fitted_images:
            entry["png"] = base64.b64encode(images.png(digit.pixels)).decode()
        entries.append(entry)
    return entries
