"""POST /interpolate: the digits on the way from one point of the noise to another."""

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.formats.content import FORMATS, check_size
from api.http import bodies, schemas
from api.http.negotiation import negotiate
from api.http.schemas import InterpolateRequest
from api.routes.generate import respond
from api.state import GatewayState
from api.threads import in_thread
from serving import interpolation
from serving.interpolation import Noise
from serving.noise import noise_from_seeds

router = APIRouter(route_class=bodies.RouteWithBody)


@router.post(
    "/interpolate",
    summary="Walk from digit to digit",
    description="The digits on the way through two or more points of the generator's noise, in the format that `Accept`"
    " prefers: JSON with a PNG for each frame, one PNG sheet, a zip of PNGs, an `.npy` array, uint8 [N, 28·scale,"
    " 28·scale], or an animation that repeats forever: APNG, WebP (lossless) or GIF. All hold the same pixels.",
    **openapi.makes_images(
        InterpolateRequest, FORMATS, "The frames, from the first point on.", model=schemas.GenerateResponse
    ),
)
async def interpolate(request: Request) -> Response:
    state: GatewayState = request.state.gateway
    media_type = negotiate(request, tuple(FORMATS))
    body = await bodies.read_json(request, InterpolateRequest)
    frames = interpolation.length(len(body.seeds or body.noise), body.steps, body.loop)
    settings = state.settings
    fields = ("steps", "seeds" if body.seeds else "noise")
    check_size(media_type, frames, settings.max_images, body.scale, settings.max_pixels, fields)
    form = FORMATS[media_type]
    shown = form.batches or form.animated
    headers = {"Content-Disposition": f'inline; filename="walk.{form.suffix}"'} if shown else {}
    with state.admission.images(request, frames, "/steps"):
        noise = await in_thread(lambda: _path(body))  # of 4,096 seeds it takes half a second
        response, _ = await respond(request, state, noise, frames, body, media_type, headers, frame_ms=body.frame_ms)
        return response


def _path(body: InterpolateRequest) -> Noise:
    """Returns the noise of all frames: float32 [N, 100]."""
    points = noise_from_seeds(body.seeds) if body.seeds else np.array(body.noise, np.float32)
    return interpolation.path(points, body.steps, body.method, body.loop)
