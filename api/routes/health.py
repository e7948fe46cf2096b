"""GET /healthz/live and /healthz/ready: whether the process runs, and whether it can serve requests."""

import math
import time
from typing import Final

from fastapi import APIRouter, Request

from api import openapi
from api.http import problems
from api.http.errors import problem_of
from api.http.problems import ProblemError
from api.http.schemas import Health
from api.state import GatewayState
from api.telemetry.model_status import all_statuses
from serving.tf_serving.client import DeadlineError, ModelServerError

router = APIRouter(prefix="/healthz")

STALE_STATUS_S: Final = 15.0
"""How long the last status of a model counts while the model server is too busy to answer. All gateways ask the same
model servers: if slowness made them unready, no gateway would be left, and requests that take a second would fail."""


@router.get("/live", summary="Is the process alive?", responses=openapi.failures(problems.INTERNAL_ERROR))
async def live() -> Health:
    """Depends on nothing else."""
    return Health(status="live")


@router.get(
    "/ready",
    summary="Can requests be served?",
    responses=openapi.failures(problems.INTERNAL_ERROR, problems.NOT_READY),
)
async def ready(request: Request) -> Health:
    """Ready means that every model that the routes need has a version AVAILABLE: with `DIGITGAN_VERSION_LABEL`, the one
    with this label.

    A model server that is too slow to say so is taken at its last word, for 15 seconds.
    """
    state: GatewayState = request.state.gateway
    if state.draining:
        raise ProblemError(problems.NOT_READY, "shutting down")
    if errors := await unready_models(state):
        names = ", ".join(error["model"] for error in errors)
        raise ProblemError(problems.NOT_READY, f"not AVAILABLE: {names}", errors=errors)
    return Health(status="ready")


async def unready_models(state: GatewayState) -> list[dict[str, str]]:
    """Returns ``model`` and ``detail`` for each model that isn't available; nothing if all of them are."""
    now, seen = time.monotonic(), state.available_at
    faults = {}
    for model, status in (await all_statuses(state.inference.client, state.settings.ready_timeout_s)).items():
        if isinstance(status, ModelServerError):
            if not isinstance(status, DeadlineError) or now - seen.get(model, -math.inf) >= STALE_STATUS_S:
                faults[model] = problem_of(status).detail
        elif status.serving:
            seen[model] = now
        else:
            faults[model] = status.detail or ""
    return [{"model": model, "detail": detail} for model, detail in faults.items()]
