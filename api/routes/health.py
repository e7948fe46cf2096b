"""GET /healthz/live and /healthz/ready: whether the process runs, and whether it can serve requests."""

import asyncio
import math
import time
from typing import Final

from fastapi import APIRouter

from api import openapi
from api.http import problems
from api.http.errors import problem_of
from api.http.problems import ProblemError
from api.http.schemas import Health
from api.state import Lifecycle, StateDep
from api.telemetry.model_status import model_status
from api.upstream.inference import Inference
from serving.contract import MODELS
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
async def ready(state: StateDep) -> Health:
    """Ready means that every model that the routes need has a version AVAILABLE: with `DIGITGAN_VERSION_LABEL`, the one
    with this label.

    A model server that is too slow to say so is taken at its last word, for 15 seconds.
    """
    if state.lifecycle.draining:
        raise ProblemError(problems.NOT_READY, "shutting down")
    if errors := await unready_models(state.inference, state.lifecycle, state.settings.ready_timeout_s):
        names = ", ".join(error["model"] for error in errors)
        raise ProblemError(problems.NOT_READY, f"not AVAILABLE: {names}", errors=errors)
    return Health(status="ready")


async def unready_models(inference: Inference, lifecycle: Lifecycle, timeout_s: float) -> list[dict[str, str]]:
    """Returns ``model`` and ``detail`` for each model that isn't available; nothing if all of them are."""
    seen = lifecycle.available_at

    async def fault(model: str) -> str:
        try:
            status = await model_status(inference.client, model, timeout_s)
        except DeadlineError as error:
            is_stale = time.monotonic() - seen.get(model, -math.inf) >= STALE_STATUS_S
            return problem_of(error).detail if is_stale else ""
        except ModelServerError as error:
            return problem_of(error).detail
        if status.serving:
            seen[model] = time.monotonic()
        return "" if status.serving else status.detail or ""

    found = zip(MODELS, await asyncio.gather(*map(fault, MODELS)), strict=True)
    return [{"model": model, "detail": detail} for model, detail in found if detail]
