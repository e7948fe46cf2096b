"""GET /digits/{seed}.png: one digit as a plain, cacheable image."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api import openapi
from api.formats import images
from api.formats.images import PNG
from api.http import caching, problems
from api.http.current_request import TIMEOUT_PARAMETER, limit_of, time_limit
from api.http.schemas import GeneratorVersion, Scale, SeedInPath
from api.state import GatewayState
from serving.contract import GENERATOR, IMAGES

router = APIRouter()

_HEADERS: Final = openapi.MODEL_HEADERS | caching.HEADERS


@router.get(
    "/digits/{seed}.png",
    summary="One digit as an image",
    description="For an `<img>` tag: cacheable for a year with `version`, revalidated by `ETag` without.",
    responses={
        200: {"description": "The digit.", "content": {PNG: openapi.binary()}, "headers": _HEADERS},
        304: {"description": "The image is the one that `If-None-Match` names.", "headers": _HEADERS},
        **openapi.failures(problems.VERSION_NOT_FOUND, problems.INVALID_REQUEST, *openapi.UPSTREAM),
    },
    openapi_extra={"parameters": [TIMEOUT_PARAMETER]},
    response_class=Response,
)
async def digit(
    request: Request,
    seed: Annotated[SeedInPath, Path(description="The digit's seed.")],
    scale: Annotated[Scale, Query(description="Enlarges each pixel to a square of this side.")] = 1,
    version: GeneratorVersion = None,
) -> Response:
    state: GatewayState = request.state.gateway
    with state.admission.images(request, 1):
        async with time_limit(limit_of(request, state.settings.request_timeout_s)):
            made = await state.inference.predict(GENERATOR, [seed], version=version)
    headers = {"X-Model": made.model, "X-Model-Version": str(made.version)}
    return caching.cacheable(request, images.png(made.outputs[IMAGES][0, :, :, 0], scale), PNG, headers, version)
