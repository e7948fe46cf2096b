"""Reading request bodies: the media type, JSON by orjson, and what pydantic finds wrong, as problems."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.problems import (
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemError,
    at_parameter,
    at_pointer,
    invalid,
)

JSON: Final = "application/json"
_MOST_ERRORS: Final = 20

_Model = TypeVar("_Model", bound=BaseModel)


def media_type(request: Request, accepted: Sequence[str]) -> str:
    """Returns the media type of the body, in lower case, without parameters.

    Raises ProblemError (415) if it isn't one of ``accepted``, or if the body is compressed.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    headers = {"Accept": ", ".join(accepted)}
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise ProblemError(
            UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: the body should not be compressed", headers=headers
        )
    if given not in accepted:
        wanted = " or ".join(accepted)
        found = f"not {given}" if given else "and there is none"
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, f"Content-Type: should be {wanted}, {found}", headers=headers)
    return given


async def read_json(request: Request, model: type[_Model]) -> _Model:
    """Returns the JSON body as a ``model``. The caller has checked the media type.

    Raises ProblemError: 400 if it isn't JSON, 422 naming each field at fault.
    """
    return parse_json(await request.body(), model)


def parse_json(body: bytes, model: type[_Model]) -> _Model:
    """Returns JSON as a ``model``.

    Raises ProblemError: 400 if it isn't JSON, 422 naming each field at fault.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        content = _with_numbers_that_json_lacks(body, error)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise invalid(*_body_errors(error.errors(include_url=False, include_input=False))) from error


def _with_numbers_that_json_lacks(body: bytes, error: orjson.JSONDecodeError) -> Any:
    """Returns a body that is JSON but for NaN, Infinity or 1e999, so that validation can name the field."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        where = f"line {error.lineno}, column {error.colno}"
        raise ProblemError(MALFORMED_REQUEST, f"not JSON: {error.msg.partition(':')[0]} at {where}") from error


def _body_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    found = []
    for error in errors:
        place = "".join(f"/{escaped(part)}" for part in error["loc"])
        if error["type"] in ("exactly_one", "needs_count"):
            fields = error["ctx"]["fields"]
            found += [at_pointer(f"/{field}", error["msg"]) for field in fields] or [at_pointer("", error["msg"])]
        elif error["type"] == "extra_forbidden":
            found.append(at_pointer(place, "There is no such field"))
        elif error["type"] == "model_type":
            found.append(at_pointer(place, "Input should be a JSON object"))
        else:
            found.append(at_pointer(place, error["msg"]))
    return found[:_MOST_ERRORS]


def parameter_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the entries of ``errors`` for what FastAPI found wrong with path and query."""
    return [at_parameter(str(error["loc"][-1]), error["msg"]) for error in errors]


def escaped(part: object) -> str:
    """Returns a part of a JSON pointer (RFC 6901), cut to a length that is fit to be echoed."""
    return str(part)[:100].replace("~", "~0").replace("/", "~1")
