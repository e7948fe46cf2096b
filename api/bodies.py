"""Reading request bodies: the media type, JSON by orjson, and what pydantic finds wrong, as problems."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
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

MOST_CONTAINERS: Final = 2**17
"""Lists and objects in a JSON body, each of which takes 60 bytes of memory and more; or one for each 128 bytes."""
MOST_VALUES: Final = 2**20
"""Values in a JSON body, or one for each 8 bytes: a number of noise takes about 10."""

_Model = TypeVar("_Model", bound=BaseModel)


def media_type(request: Request, accepted: Sequence[str]) -> str:
    """Returns the media type of the body, in lower case, without parameters.

    Raises ProblemError (415) if it isn't one of ``accepted``, or if the body is compressed.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    headers = {"Accept": ", ".join(accepted)}
    refuse_compressed(request, headers)
    if given not in accepted:
        wanted = " or ".join(accepted)
        found = f"not {given[:100]}" if given else "and there is none"
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, f"Content-Type: should be {wanted}, {found}", headers=headers)
    return given


def refuse_compressed(request: Request, headers: Mapping[str, str]) -> None:
    """Raises ProblemError (415) with ``headers`` if the body is compressed."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        detail = "Content-Encoding: the body should not be compressed"
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, detail, headers=headers)


async def read_json(request: Request, model: type[_Model]) -> _Model:
    """Returns the JSON body as a ``model``. The caller has checked the media type.

    Raises ProblemError: 400 if it isn't JSON, 422 naming each field at fault.
    """
    return parse_json(await request.body(), model)


def parse_json(body: bytes, model: type[_Model]) -> _Model:
    """Returns JSON as a ``model``.

    Raises ProblemError: 400 if it isn't JSON, 422 naming each field at fault.
    """
    _check_size(body)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        content = _with_numbers_that_json_lacks(body, error)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise invalid(*_body_errors(error.errors(include_url=False, include_input=False))) from error


def check_charset(request: Request) -> None:
    """Refuses multipart whose ``charset`` isn't UTF-8 (RFC 7578 has no other by default).

    It names the codec that the fields are read by, and Python has codecs that take minutes for a mebibyte (punycode).
    Raises ProblemError (415).
    """
    charset = parse_options_header(request.headers.get("content-type", ""))[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Content-Type: the charset should be utf-8")


def _check_size(body: bytes) -> None:
    """Refuses JSON that would be 25 times its size in memory: told by what is counted quickly, before it is parsed.

    Commas and brackets in strings count too, which base64 doesn't have. Raises ProblemError (422).
    """
    for most, what, count in (
        (max(MOST_CONTAINERS, len(body) // 128), "lists and objects", body.count(b"[") + body.count(b"{")),
        (max(MOST_VALUES, len(body) // 8), "values", body.count(b",") + 1),
    ):
        if count > most:
            raise invalid(at_pointer("", f"the body has more than {most} {what}"))


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
    """Returns a part of a JSON pointer (RFC 6901), fit to be echoed: cut, and without half surrogate pairs."""
    return str(part)[:100].encode(errors="replace").decode().replace("~", "~0").replace("/", "~1")
