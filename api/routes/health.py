"""GET /healthz/live and /healthz/ready: whether the process runs, and whether it can serve requests."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, Request

from api import openapi
from api.http import problems
from api.http.errors import problem_of
from api.http.problems import ProblemError
from api.http.schemas import Health
from api.state import StateDep
from api.telemetry.model_status import model_status
from api.upstream.inference import Inference
from serving.contract import MODELS
from serving.tf_serving.client import DeadlineError, ModelServerError

router = APIRouter(prefix="/healthz")


STALE_STATUS_S: Final = 15.0
"""How long the last status of a model counts while the model server is too busy to answer. All gateways ask the same
model servers: if slowness made them unready, no gateway would be left, and requests that take a second would fail."""


@dataclass
class Lifecycle:
    """What readiness depends on beside the model server.

    Attributes:
        draining: the gateway is about to stop: then it isn't ready, while it still answers.
        available_at: when each model was AVAILABLE last, in the time of ``time.monotonic``.
    """

    draining: bool = False
    available_at: dict[str, float] = field(default_factory=dict)


@router.get("/live", summary="Is the process alive?", responses=openapi.failures(problems.INTERNAL_ERROR))
async def live() -> Health:
    """Depends on nothing else."""
    return Health(status="live")


@router.get(
    "/ready",
    summary="Can requests be served?",
    responses=openapi.failures(problems.INTERNAL_ERROR, problems.NOT_READY),
)
async def ready(request: Request, state: StateDep) -> Health:
    """Ready means that every model that the routes need has a version AVAILABLE: with `DIGITGAN_VERSION_LABEL`, the one
    with this label.

    A model server that is too slow to say so is taken at its last word, for 15 seconds.
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    if lifecycle.draining:
        raise ProblemError(problems.NOT_READY, "shutting down")
    if errors := await unready_models(state.inference, lifecycle, state.settings.ready_timeout_s):
        names = ", ".join(error["model"] for error in errors)
        raise ProblemError(problems.NOT_READY, f"not AVAILABLE: {names}", errors=errors)
    return Health(status="ready")


async def unready_models(inference: Inference, lifecycle: Lifecycle, timeout_s: float) -> list[dict[str, str]]:
    """Returns ``model`` and ``detail`` for each model that isn't available; nothing if all of them are."""
    found = await asyncio.gather(*(_unready(inference, lifecycle, name, timeout_s) for name in MODELS))
    return [{"model": name, "detail": detail} for name, detail in zip(MODELS, found, strict=True) if detail]


async def _unready(inference: Inference, lifecycle: Lifecycle, model: str, timeout_s: float) -> str:
    """Returns why ``model`` isn't available; "" if it is."""
    seen = lifecycle.available_at
    try:
        status = await model_status(inference.client, model, timeout_s)
    except DeadlineError as error:
        silent_s = time.monotonic() - seen[model] if model in seen else STALE_STATUS_S
        return "" if silent_s < STALE_STATUS_S else problem_of(error).detail
    except ModelServerError as error:
        return problem_of(error).detail
    if status.serving is None:
        return status.detail or ""
    seen[model] = time.monotonic()
    return ""
