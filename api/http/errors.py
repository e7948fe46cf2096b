"""The one mapping from failures inside the service to the problem documents that clients get."""

import logging
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.http import problems
from api.http.current_request import current
from api.http.problems import ProblemError, ProblemType, at_parameter, invalid, problem_response
from api.state import KEY, GatewayState
from serving.tf_serving import client
from serving.tf_serving.client import DeadlineError, ModelServerError, VersionNotFoundError

_log = logging.getLogger(__name__)

UPSTREAM: Final[dict[type[ModelServerError], tuple[ProblemType, str]]] = {  # the log has the server's message
    VersionNotFoundError: (problems.VERSION_NOT_FOUND, "{model} has no version {version}"),
    client.ModelNotServedError: (problems.MODEL_NOT_SERVED, "{model} is not AVAILABLE"),
    client.OverloadedError: (problems.OVERLOADED, "the model server refused more work for {model}"),
    client.UnreachableError: (problems.MODEL_SERVER_UNREACHABLE, "no connection to the model server of {model}"),
    client.HandshakeError: (
        problems.MODEL_SERVER_UNREACHABLE,
        "the TLS handshake with the model server of {model} failed: see DIGITGAN_MODEL_SERVER_TLS_CA, _CERT and _KEY",
    ),
    client.ContractError: (problems.BROKEN_CONTRACT, "{model} does not answer as agreed"),
    client.NoSignatureError: (problems.BROKEN_CONTRACT, "{model} does not answer as agreed"),
    DeadlineError: (problems.TIMEOUT, "the time ran out at the model server: {model} took too long"),
}


def problem_of(error: ModelServerError) -> ProblemError:
    """Returns the problem that a client gets for a failure of the model server."""
    problem, detail = UPSTREAM[type(error)]
    return ProblemError(problem, detail.format_map(vars(error)))


def install(app: FastAPI) -> None:
    """Makes every failure of ``app`` a problem document."""
    for kind in (ProblemError, ModelServerError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    """Answers a failure. The text of an unknown one is only in the log."""
    match error:
        case ProblemError():
            problem = error
        case ModelServerError():
            problem = problem_of(error)
            if not isinstance(error, VersionNotFoundError):
                kind = error.model, error.code
                _log.warning("%s %s: %s", request.method, request.url.path, error, extra={"kind": kind})
        case RequestValidationError():
            problem = invalid(*(at_parameter(str(one["loc"][-1]), one["msg"]) for one in error.errors()))
        case HTTPException(status_code=404):
            problem = ProblemError(problems.NOT_FOUND, "no such path; GET /docs lists all")
        case HTTPException(status_code=405):
            allowed = {method.strip() for method in (error.headers or {}).get("Allow", "").split(",")}
            allow = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
            problem = ProblemError(problems.METHOD_NOT_ALLOWED, f"takes {allow}", headers={"Allow": allow})
        case HTTPException():
            problem = ProblemError(problems.MALFORMED_REQUEST, str(error.detail), headers=error.headers)
        case ClientDisconnect():  # in the middle of its request: it does not get this answer
            problem = ProblemError(problems.MALFORMED_REQUEST, "the request broke off")
        case _:
            headers = {"Connection": "close"}  # uvicorn closes it after an exception
            problem = ProblemError(problems.INTERNAL_ERROR, "the service's log has the reason", headers=headers)
    if problem.problem is problems.TIMEOUT:
        state: GatewayState = request.scope["state"][KEY]
        state.metrics.timeouts.labels("model" if isinstance(error, DeadlineError) else current.get().waited_for).inc()
    return problem_response(problem, request.scope["path"])
