"""GET /healthz/live and /healthz/ready: whether the process runs, and whether it can do its work."""

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, Request

from api import openapi, problems
from api.dependencies import InferenceDep, SettingsDep
from api.errors import problem_of
from api.inference import Inference
from api.problems import ProblemError
from api.schemas import Health
from serving.client import ModelServerError
from serving.contract import MODELS

router = APIRouter(prefix="/healthz")


@dataclass
class Lifecycle:
    """Whether the gateway is about to stop: then it isn't ready, while it still answers."""

    draining: bool = False


@router.get("/live", summary="Is the process alive?", responses=openapi.failures(problems.INTERNAL_ERROR))
async def live() -> Health:
    """Depends on nothing else."""
    return Health(status="live")


@router.get(
    "/ready",
    summary="Can requests be served?",
    responses=openapi.failures(problems.INTERNAL_ERROR, problems.NOT_READY),
)
async def ready(request: Request, settings: SettingsDep, inference: InferenceDep) -> Health:
    """Ready means that every model that the routes need has a version AVAILABLE."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    if lifecycle.draining:
        raise ProblemError(problems.NOT_READY, "shutting down")
    if errors := await complaints(inference, settings.ready_timeout_s):
        names = ", ".join(error["model"] for error in errors)
        raise ProblemError(problems.NOT_READY, f"not AVAILABLE: {names}", errors=errors)
    return Health(status="ready")


async def complaints(inference: Inference, timeout_s: float) -> list[dict[str, str]]:
    """Returns ``model`` and ``detail`` for each model that isn't available; nothing if all of them are."""
    found = await asyncio.gather(*(_complaint(inference, name, timeout_s) for name in MODELS))
    return [{"model": name, "detail": detail} for name, detail in zip(MODELS, found, strict=True) if detail]


async def _complaint(inference: Inference, model: str, timeout_s: float) -> str:
    """Returns why ``model`` isn't available; "" if it is."""
    try:
        versions = await inference.client.model_versions(model, timeout_s=timeout_s)
    except ModelServerError as error:
        return problem_of(error).detail
    if any(version.state == "AVAILABLE" for version in versions):
        return ""
    states = ", ".join(f"{version.version} {version.state}" for version in versions)
    return f"no version is AVAILABLE ({states or 'there are none'})"
