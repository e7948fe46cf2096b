"""POST /generate and /interpolate: digits from seeds or noise, from seeds that the server chooses, or on a path."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.digits import making
from api.formats.content import FORMATS, check_size
from api.formats.streams import Stream
from api.http import bodies, problems
from api.http.current_request import time_limit
from api.http.schemas import GenerateRequest, GenerateResponse, InterpolateRequest
from api.state import GatewayState
from api.threads import in_thread_if_large
from api.upstream.inference import Rows
from serving import interpolation
from serving.noise import noise_from_seeds

router = APIRouter(route_class=bodies.RouteWithBody)

OFFERED: Final = tuple(name for name, form in FORMATS.items() if not form.animated)
MAX_SEEDS_IN_HEADER: Final = 256  # that do not follow each other: 1.5 KB, where proxies take 4 to 8 KB of headers

_X_SEEDS: Final = {
    "schema": {"type": "string", "pattern": "^[0-9]+(-[0-9]+|(,[0-9]+)*)$"},
    "description": "With `count`: the first and the last of the seeds, which follow each other; with `digit` or"
    f" `curated` all of them, up to {MAX_SEEDS_IN_HEADER}.",
}
_LARGE_PIXELS: Final = 2**22
_LARGE: Final = ThreadPoolExecutor(2)  # encodes large answers: each takes two bytes a pixel, 130 MB for the largest


@router.post(
    "/generate",
    summary="Make digits",
    description="Digits from seeds, from noise vectors, or from seeds that the server chooses, in the format that"
    " `Accept` prefers: JSON with a PNG for each digit, one PNG (a sheet if there are several digits), a zip of"
    " PNGs, or an `.npy` array, uint8 [N, 28·scale, 28·scale]. Zip and npy are streamed. With `digit` and `curated`"
    " only digits of a kind are generated; with `labels` the answer has the digit that each image shows.",
    **openapi.makes_images(
        GenerateRequest,
        OFFERED,
        "The digits, in the order of the request.",
        problems.NO_SEED_INDEX,
        model=GenerateResponse,
        headers=openapi.MODEL_HEADERS | {"X-Seeds": _X_SEEDS},
    ),
)
async def generate(request: Request) -> Response:
    state: GatewayState = request.state.gateway
    media_type = bodies.negotiate(request, OFFERED)
    form = FORMATS[media_type]
    body = await bodies.read_json(request, GenerateRequest)
    if body.labels and not form.has_labels:
        labelled = " and ".join(name for name, form in FORMATS.items() if form.has_labels)
        raise problems.invalid(problems.at_pointer("/labels", f"{media_type} has no room for labels; {labelled} have"))
    count = len(body.seeds) or len(body.noise) or body.count
    settings = state.settings
    most = settings.max_stream_images if form.batches and not body.noise else settings.max_images
    check_size(media_type, count, most, body.scale, settings.max_pixels, (body.source,))
    source = making.source_of(body)
    headers = {"Content-Disposition": f'attachment; filename="digits.{form.suffix}"'} if form.batches else {}
    with state.admission.images(request, count, f"/{body.source}"):
        return await _respond(request, source, body, media_type, headers)


@router.post(
    "/interpolate",
    summary="Walk from digit to digit",
    description="The digits on the way through two or more points of the generator's noise, in the format that `Accept`"
    " prefers: JSON with a PNG for each frame, one PNG sheet, a zip of PNGs, an `.npy` array, uint8 [N, 28·scale,"
    " 28·scale], or an animation that repeats forever: APNG, WebP (lossless) or GIF. All hold the same pixels.",
    **openapi.makes_images(InterpolateRequest, FORMATS, "The frames, from the first point on.", model=GenerateResponse),
)
async def interpolate(request: Request) -> Response:
    state: GatewayState = request.state.gateway
    media_type = bodies.negotiate(request, tuple(FORMATS))
    body = await bodies.read_json(request, InterpolateRequest)
    frames = interpolation.length(len(body.seeds or body.noise), body.steps, body.loop)
    settings = state.settings
    fields = ("steps", "seeds" if body.seeds else "noise")
    check_size(media_type, frames, settings.max_images, body.scale, settings.max_pixels, fields)
    form = FORMATS[media_type]
    named = form.batches or form.animated
    headers = {"Content-Disposition": f'inline; filename="walk.{form.suffix}"'} if named else {}
    with state.admission.images(request, frames, "/steps"):
        noise = await asyncio.to_thread(_path, body)  # of 4,096 seeds it takes half a second
        return await _respond(request, noise, body, media_type, headers)


def _path(body: InterpolateRequest) -> interpolation.Noise:
    points = noise_from_seeds(body.seeds) if body.seeds else np.array(body.noise, np.float32)
    return interpolation.path(points, body.steps, body.method, body.loop)


async def _respond(
    request: Request,
    source: Rows | GenerateRequest,
    body: GenerateRequest | InterpolateRequest,
    media_type: str,
    headers: dict[str, str],
) -> Response:
    """Generates the digits of an admitted request, and returns them as ``media_type``.

    A stream begins when its first batch is there, so that most failures are problem documents. A later failure can only
    break off the answer: its length or the missing end of the zip shows that.
    """
    state: GatewayState = request.state.gateway
    form = FORMATS[media_type]
    frame_ms = body.frame_ms if isinstance(body, InterpolateRequest) else 0
    labelled = form.has_labels and (source is body or (isinstance(body, GenerateRequest) and body.labels))
    async with time_limit(request):
        generation = await making.generate(state, source, body.version, labelled=labelled, whole=bool(form.encode))
        first, rows = generation.first, generation.rows
        headers |= {"X-Model": first.model, "X-Model-Version": str(first.version), "Vary": "Accept"}
        if isinstance(rows, range):
            headers["X-Seeds"] = f"{rows[0]}-{rows[-1]}"
        elif source is body and len(rows) <= MAX_SEEDS_IN_HEADER:
            headers["X-Seeds"] = ",".join(map(str, rows))
        if form.encode:
            pixels = first.pixels.size * body.scale**2
            encode = partial(form.encode, first, body.scale, frame_ms)
            content = await in_thread_if_large(pixels, encode, _LARGE if pixels > _LARGE_PIXELS else None)
            return Response(content, 200, headers, media_type)
    assert generation.rest
    assert form.batches
    batches = state.admission.stream(request, len(rows), first, generation.rest)
    if form.length:
        headers["Content-Length"] = str(form.length(len(rows), body.scale))
    return Stream(form.batches(batches, len(rows), body.scale), (generation.rest, batches), headers, media_type)
