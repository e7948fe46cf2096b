"""POST /interpolate: the digits on the way from one point of the noise to another."""

from collections.abc import AsyncIterator
from typing import Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from api import answers, bodies, images, openapi, problems, schemas
from api.admission import admit
from api.animation import APNG, GIF, SUFFIXES, WEBP, animation
from api.bodies import JSON
from api.deadlines import Deadline, limit_of
from api.dependencies import StateDep
from api.images import NPY, PNG
from api.keys import charge
from api.making import Digits, Maker
from api.negotiation import negotiate
from api.problems import at_pointer, invalid
from api.schemas import InterpolateRequest
from api.settings import Settings
from api.sources import NoiseSource
from api.zipstream import ZIP
from serving import walks
from serving.contract import IMAGE_SIDE
from serving.noise import noise_from_seeds

router = APIRouter()

FORMATS: Final = (JSON, PNG, ZIP, NPY, APNG, WEBP, GIF)


@router.post(
    "/interpolate",
    summary="Walk from digit to digit",
    description="The digits on the way through two or more points of the generator's noise, in the format that `Accept`"
    " prefers: JSON with a PNG for each frame, one PNG sheet, a zip of PNGs, an `.npy` array, uint8 [N, 28·scale,"
    " 28·scale], or an animation that repeats forever: APNG, WebP (lossless) or GIF. All hold the same pixels.",
    responses={
        200: {
            "model": schemas.InterpolateResponse,
            "description": "The frames, from the first point on.",
            "content": {media_type: openapi.binary() for media_type in FORMATS[1:]},
            "headers": openapi.MODEL_HEADERS,
        },
        **openapi.failures(
            *openapi.WITH_BODY,
            problems.VERSION_NOT_FOUND,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body({JSON: openapi.schema_of(InterpolateRequest)}),
    response_class=Response,
)
async def interpolate(
    request: Request,
    state: StateDep,
) -> Response:
    media_type = negotiate(", ".join(request.headers.getlist("accept")), FORMATS)
    bodies.media_type(request, (JSON,))
    wanted = await bodies.read_json(request, InterpolateRequest)
    _check_size(wanted, media_type, state.settings)
    frames = walks.length(len(wanted.seeds or wanted.noise), wanted.steps, wanted.loop)
    admit(request, frames)
    charge(request, frames, "/steps")
    points = noise_from_seeds(wanted.seeds) if wanted.seeds else np.array(wanted.noise, np.float32)
    source = NoiseSource(walks.walk(points, wanted.steps, wanted.method, wanted.loop))
    deadline = Deadline(limit_of(request, state.settings.request_timeout_s))
    time_left = deadline.for_calls(frames * (IMAGE_SIDE * wanted.scale) ** 2)
    maker = Maker(state.inference, state.indexes, state.metrics, labelled=False, time_left=time_left)
    _, digits = await maker.complete(source, wanted.version)
    headers = {**digits.headers, "Vary": "Accept"}
    if media_type in (ZIP, NPY, *SUFFIXES):
        suffix = SUFFIXES.get(media_type, media_type.rpartition("/")[2].removeprefix("x-"))
        headers["Content-Disposition"] = f'inline; filename="walk.{suffix}"'
    if media_type == ZIP:
        return StreamingResponse(answers.as_zip(_one(digits), source, wanted.scale), 200, headers, ZIP)
    if media_type == NPY:  # enlarged while it is sent: whole, it would have a byte for each pixel
        headers["Content-Length"] = str(answers.npy_length(len(source), wanted.scale))
        return StreamingResponse(answers.as_npy(_one(digits), len(source), wanted.scale), 200, headers, NPY)
    async with deadline.making_the_answer():
        content = await _encoded(digits, source, wanted, media_type)
    return Response(content, 200, headers, media_type)


def _check_size(wanted: InterpolateRequest, media_type: str, settings: Settings) -> None:
    """Raises ProblemError (422) if there would be more frames or pixels than ``settings`` allow."""
    field = "seeds" if wanted.seeds else "noise"
    frames = walks.length(len(wanted.seeds or wanted.noise), wanted.steps, wanted.loop)
    if frames > settings.max_images:
        detail = f"{frames} frames; at most {settings.max_images} are made"
        raise invalid(at_pointer("/steps", detail), at_pointer(f"/{field}", detail))
    height, width = frames * IMAGE_SIDE, IMAGE_SIDE
    if media_type == PNG:
        height, width = images.sheet_shape(frames, IMAGE_SIDE)
    pixels = height * width * wanted.scale**2
    if pixels > settings.max_pixels:
        detail = f"{pixels} pixels; at most {settings.max_pixels} are made"
        raise invalid(at_pointer("/scale", detail), at_pointer("/steps", detail))


async def _encoded(digits: Digits, source: NoiseSource, wanted: InterpolateRequest, media_type: str) -> bytes:
    size = digits.pixels.size * wanted.scale**2
    match media_type:
        case "application/json":
            return await answers.encode(size, answers.as_json, digits, source, wanted.scale)
        case "image/png":
            return await answers.encode(size, images.png, images.sheet(digits.pixels), wanted.scale)
    return await answers.encode(size, animation, digits.pixels, media_type, wanted.frame_ms, wanted.scale)


async def _one(digits: Digits) -> AsyncIterator[Digits]:
    yield digits
