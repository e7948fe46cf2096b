"""Answers that browsers may keep: GET /digits/{seed}.png, one digit for an <img> tag, and GET /story."""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.formats import images
from api.http import problems
from api.http.bodies import JSON
from api.http.current_request import TIMEOUT_PARAMETER, time_limit
from api.http.schemas import GeneratorVersion, Scale, SeedInPath, StoryResponse
from api.state import GatewayState
from api.upstream.inference import retry_on_swap
from serving.contract import GENERATOR, IMAGES

router = APIRouter()

FOREVER: Final = "public, max-age=31536000, immutable"  # for a version that the request names: it never changes
REVALIDATE: Final = "public, no-cache"  # for answers that may change: clients ask each time, and get a 304

_HEADERS: Final[dict[str, Any]] = {
    **openapi.MODEL_HEADERS,
    "ETag": {"schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
}


@router.get(
    "/digits/{seed}.png",
    summary="One digit as an image",
    description="For an `<img>` tag: cacheable for a year with `version`, revalidated by `ETag` without.",
    responses={
        200: {"description": "The digit.", "content": {images.PNG: openapi.BINARY}, "headers": _HEADERS},
        304: {"description": "The image is the one that `If-None-Match` names.", "headers": _HEADERS},
        **openapi.failures(problems.VERSION_NOT_FOUND, problems.INVALID_REQUEST, *openapi.UPSTREAM),
    },
    openapi_extra={"parameters": [TIMEOUT_PARAMETER]},
    response_class=Response,
)
async def digit(request: Request, seed: SeedInPath, scale: Scale = 1, version: GeneratorVersion = None) -> Response:
    state: GatewayState = request.state.gateway
    with state.admission.images(request, 1):
        async with time_limit(request):
            made = await state.inference.predict(GENERATOR, [seed], version=version)
    headers = {"X-Model": made.model, "X-Model-Version": str(made.version)}
    return _cacheable(request, images.png(made.outputs[IMAGES][0, :, :, 0], scale), images.PNG, headers, version)


@router.get(
    "/story",
    summary="How the generator learned",
    description="The story of the training run that a generator's version comes from: the same seeds at every"
    " milestone, the log of both losses, the evaluations on the way, and a verdict on stability in words.",
    responses={
        200: {"model": StoryResponse, "description": "The story.", "headers": _HEADERS},
        304: {"description": "The story is the one that `If-None-Match` names.", "headers": _HEADERS},
        **openapi.failures(problems.VERSION_NOT_FOUND, problems.NO_STORY, problems.INVALID_REQUEST, *openapi.UPSTREAM),
    },
    response_class=Response,
)
async def story(request: Request, version: GeneratorVersion = None) -> Response:
    state: GatewayState = request.state.gateway
    stories = state.stories
    async with time_limit(request):
        found = await retry_on_swap(GENERATOR, version, partial(stories.of, version), stories.forget_newest)
    if found is None:
        raise problems.ProblemError(problems.NO_STORY, "the generator's version was exported without its story")
    headers = {"X-Model": GENERATOR, "X-Model-Version": str(found.version)}
    return _cacheable(request, found.content, JSON, headers, version)


def _cacheable(
    request: Request, content: bytes, media_type: str, headers: Mapping[str, str], version: int | None
) -> Response:
    """Returns the answer, or 304 if ``If-None-Match`` names it. ``version``: the one that the request names."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**headers, "ETag": etag, "Cache-Control": REVALIDATE if version is None else FOREVER}
    # The weak comparison of RFC 9110, section 13.1.2.
    tags = [tag.strip().removeprefix("W/") for tag in ", ".join(request.headers.getlist("if-none-match")).split(",")]
    if etag in tags or tags == ["*"]:
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type)
