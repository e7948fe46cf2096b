"""What FastAPI does not see for the OpenAPI document: problems, and the bodies that ``api.http.bodies`` reads."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from api.http import problems, schemas
from api.http.bodies import JSON
from api.http.current_request import TIMEOUT_PARAMETER
from api.middleware import keys
from api.settings import Settings

_REF: Final = "#/components/schemas/{model}"
_models: Final[set[type[BaseModel]]] = {schemas.Problem}

WITH_BODY: Final = (  # the failures of every route that reads a body and negotiates its answer
    problems.MALFORMED_REQUEST,
    problems.NOT_ACCEPTABLE,
    problems.BODY_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.INVALID_REQUEST,
)

UPSTREAM: Final = (  # the failures of every route that calls the model server
    problems.INTERNAL_ERROR,
    problems.BROKEN_CONTRACT,
    problems.MODEL_NOT_SERVED,
    problems.OVERLOADED,
    problems.MODEL_SERVER_UNREACHABLE,
    problems.TIMEOUT,
)

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}  # of a body that isn't text

MODEL_HEADERS: Final[dict[str, Any]] = {
    "X-Model": {"schema": {"type": "string"}, "description": "The model, as the model server says."},
    "X-Model-Version": {"schema": {"type": "integer"}, "description": "Its version."},
}


def failures(*types: problems.ProblemType) -> dict[int | str, dict[str, Any]]:
    """Returns the ``responses`` of a route that can fail in these ways."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    retry_after = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({problem.status for problem in types}):
        alike = [problem for problem in types if problem.status == status]
        responses[status] = {"description": "; ".join(problem.title for problem in alike), "content": content}
        if any(problem.retry_after_s is not None for problem in alike):
            responses[status]["headers"] = retry_after
    return responses


def body(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the ``openapi_extra`` of a route with a required body, by media type, and the header for its deadline."""
    return {"parameters": [TIMEOUT_PARAMETER], "requestBody": {"required": True, "content": content}}


def makes_images(
    request: type[BaseModel],
    media_types: Iterable[str],
    description: str,
    *more_failures: problems.ProblemType,
    model: type[BaseModel] | None = None,
    headers: Mapping[str, Any] = MODEL_HEADERS,
) -> dict[str, Any]:
    """Returns the arguments of a route that makes images from a JSON ``request``. ``model``: its answer as JSON."""
    content = {media_type: BINARY for media_type in media_types if media_type != JSON}
    answer = {"model": model, "description": description, "content": content, "headers": headers}
    failing = failures(*WITH_BODY, problems.VERSION_NOT_FOUND, *more_failures, *UPSTREAM)
    return {
        "responses": {200: answer, **failing},
        "openapi_extra": body({JSON: schema_of(request)}),
        "response_class": Response,
    }


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the media type object of a body of the type ``model``, and adds its schema to the document."""
    _models.add(model)
    return {"schema": {"$ref": _REF.format(model=model.__name__)}}


def complete(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Adds to FastAPI's document what it lacks, with the limits in ``settings``, and returns it."""
    _, definitions = models_json_schema([(model, "validation") for model in _models], ref_template=_REF)
    known = document["components"]["schemas"]
    known |= definitions["$defs"]
    for model, field, bound, most in (
        ("GenerateRequest", "seeds", "maxItems", settings.max_stream_images),
        ("GenerateRequest", "count", "maximum", settings.max_stream_images),
        ("GenerateRequest", "noise", "maxItems", settings.max_images),
        ("DatasetRequest", "count", "maximum", settings.max_stream_images),
        ("InterpolateRequest", "seeds", "maxItems", settings.max_images),
        ("InterpolateRequest", "noise", "maxItems", settings.max_images),
        ("ScoreRequest", "images", "maxItems", settings.max_score_images),
    ):
        known[model]["properties"][field][bound] = most
    if settings.api_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        refusals = failures(problems.UNAUTHENTICATED, problems.RATE_LIMITED)
        for path, item in document["paths"].items():
            for operation in item.values() if not path.startswith(keys.OPEN) else ():
                operation["security"] = [{"key": []}]
                operation["responses"] |= {str(status): response for status, response in refusals.items()}
    return document
