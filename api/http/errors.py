"""The one mapping from failures inside the service to the problem documents that clients get."""

import logging
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Mount

from api.http.bodies import parameter_errors
from api.http.deadlines import OutOfTimeError, Part
from api.http.problems import (
    BROKEN_CONTRACT,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    MODEL_NOT_SERVED,
    MODEL_SERVER_UNREACHABLE,
    NOT_FOUND,
    OVERLOADED,
    TIMEOUT,
    VERSION_NOT_FOUND,
    ProblemError,
    ProblemType,
    invalid,
    problem_response,
)
from api.state import KEY, GatewayState
from api.telemetry import observation
from serving.tf_serving.client import (
    ContractError,
    DeadlineError,
    HandshakeError,
    ModelNotServedError,
    ModelServerError,
    NoSignatureError,
    OverloadedError,
    UnreachableError,
    VersionNotFoundError,
)

_log = logging.getLogger(__name__)

UPSTREAM: Final[dict[type[ModelServerError], tuple[ProblemType, str]]] = {
    VersionNotFoundError: (VERSION_NOT_FOUND, "{model} has no version {version}"),
    ModelNotServedError: (MODEL_NOT_SERVED, "{model} is not AVAILABLE"),
    OverloadedError: (OVERLOADED, "the model server refused more work for {model}"),
    UnreachableError: (MODEL_SERVER_UNREACHABLE, "no connection to the model server of {model}"),
    HandshakeError: (
        MODEL_SERVER_UNREACHABLE,
        "the TLS handshake with the model server of {model} failed: see DIGITGAN_MODEL_SERVER_TLS_CA, _CERT and _KEY",
    ),
    ContractError: (BROKEN_CONTRACT, "{model} does not answer as agreed"),
    NoSignatureError: (BROKEN_CONTRACT, "{model} does not answer as agreed"),
    DeadlineError: (TIMEOUT, "the time ran out at the model server: {model} took too long"),
}
"""The problem and its detail for each failure of the model server. The log has the server's own message."""


def problem_of(error: ModelServerError) -> ProblemError:
    """Returns the problem that a client gets for a failure of the model server."""
    problem, detail = UPSTREAM[type(error)]
    return ProblemError(problem, detail.format_map(vars(error)))


def install(app: FastAPI) -> None:
    """Makes every failure of ``app`` a problem document."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(ModelServerError, _upstream)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _unknown)


def _answer(request: Request, error: ProblemError) -> Response:
    return problem_response(error, request.scope["path"])


def _count_timeout(request: Request, part: Part) -> None:
    state: GatewayState = request.scope["state"][KEY]
    state.metrics.timeouts.labels(part).inc()


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    if isinstance(error, OutOfTimeError):
        _count_timeout(request, error.part)
    return _answer(request, error)


async def _upstream(request: Request, error: Exception) -> Response:
    assert isinstance(error, ModelServerError)
    if not isinstance(error, VersionNotFoundError):
        kind = error.model, error.code
        _log.warning("%s %s: %s", request.method, request.url.path, error, extra={"kind": kind})
    if isinstance(error, DeadlineError):
        _count_timeout(request, "model")
    return _answer(request, problem_of(error))


async def _parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, invalid(*parameter_errors(error.errors())))


async def _http(request: Request, error: Exception) -> Response:
    """Answers what Starlette refuses: an unknown path or method. A trailing slash is redirected."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == METHOD_NOT_ALLOWED.status:
        allowed = {method.strip() for method in headers.get("Allow", "").split(",")}
        headers["Allow"] = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        return _answer(request, ProblemError(METHOD_NOT_ALLOWED, f"takes {headers['Allow']}", headers=headers))
    if error.status_code == NOT_FOUND.status:
        if target := _without_slash(request):
            return RedirectResponse(target)
        return _answer(request, ProblemError(NOT_FOUND, "no such path; GET /docs lists all", headers=headers))
    return _answer(request, ProblemError(MALFORMED_REQUEST, str(error.detail), headers=headers))


def _without_slash(request: Request) -> str | None:
    """Returns the address without its trailing slash if a route has it, relative to the request's own.

    A relative address stays right behind a proxy that strips a path prefix; Starlette's own redirect does not.
    """
    path = request.url.path
    scope = {**request.scope, "path": path.rstrip("/")}
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    if not path.endswith("/") or all(route.matches(scope)[0] is Match.NONE for route in routes):
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    return f"../{path.rstrip('/').rpartition('/')[2]}{query}"


async def _client_disconnected(request: Request, error: Exception) -> Response:
    """Answers a client that disconnected in the middle of its request. It does not get this answer."""
    return _answer(request, ProblemError(MALFORMED_REQUEST, "the request broke off"))


async def _unknown(request: Request, error: Exception) -> Response:
    """Answers an unknown failure without its text: the request's id leads to the exception in the log.

    This answer passes no middleware, so it gets its id here.
    """
    under_way = observation.current.get()
    headers = {"Connection": "close"}  # as uvicorn does after an exception: the client must not reuse it
    if under_way:
        headers[observation.REQUEST_ID] = under_way.request_id
    return _answer(request, ProblemError(INTERNAL_ERROR, "the service's log has the reason", headers=headers))
