"""GET /story: how the generator learned."""

from functools import partial
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.http import caching, problems
from api.http.bodies import JSON
from api.http.current_request import time_limit
from api.http.problems import ProblemError
from api.http.schemas import GeneratorVersion, StoryResponse
from api.state import GatewayState
from api.upstream.inference import retry_on_swap
from serving.contract import GENERATOR

router = APIRouter()

_HEADERS: Final = openapi.MODEL_HEADERS | caching.HEADERS


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
    async with time_limit(state.settings.request_timeout_s):
        found = await retry_on_swap(GENERATOR, version, partial(stories.of, version), stories.forget_newest)
    if found is None:
        raise ProblemError(problems.NO_STORY, "the generator's version was exported without its story")
    headers = {"X-Model": GENERATOR, "X-Model-Version": str(found.version)}
    return caching.cacheable(request, found.content, JSON, headers, version)
