"""The state of the service: GET /healthz/live, /healthz/ready, /models and /metrics."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from api import openapi
from api.http import problems
from api.http.errors import problem_of
from api.http.schemas import Health, Model, ModelsResponse, ModelVersion, VersionError
from api.state import GatewayState
from serving.contract import MODELS
from serving.tf_serving.client import DeadlineError, ModelNotServedError, ModelServerError, VersionStatus
from serving.versions.model_card import CardError, read_card

router = APIRouter()

STALE_STATUS_S: Final = 15.0
"""How long the last status of a model counts while the model server is too busy to answer. All gateways ask the same
model servers: if slowness made them unready, no gateway would be left, and requests that take a second would fail."""

_log: Final = logging.getLogger(__name__)


@router.get("/healthz/live", summary="Is the process alive?", responses=openapi.failures(problems.INTERNAL_ERROR))
async def live() -> Health:
    """Depends on nothing else."""
    return Health(status="live")


@router.get(
    "/healthz/ready",
    summary="Can requests be served?",
    responses=openapi.failures(problems.INTERNAL_ERROR, problems.NOT_READY),
)
async def ready(request: Request) -> Health:
    """Ready means that every model that the routes need has a version AVAILABLE: with `DIGITGAN_VERSION_LABEL`, the one
    with this label.

    While a model server is too slow to answer, its last answer counts for 15 seconds.
    """
    state: GatewayState = request.state.gateway
    if state.draining:
        raise problems.ProblemError(problems.NOT_READY, "shutting down")
    if errors := await unready_models(state):
        names = ", ".join(error["model"] for error in errors)
        raise problems.ProblemError(problems.NOT_READY, f"not AVAILABLE: {names}", errors=errors)
    return Health(status="ready")


@router.get("/models", summary="Models, versions and model cards", responses=openapi.failures(*openapi.UPSTREAM))
async def models(request: Request) -> ModelsResponse:
    """As the model server knows them; the cards are read from the directory in `DIGITGAN_MODELS_DIR`."""
    state: GatewayState = request.state.gateway
    found = await asyncio.gather(*(model_status(state, name, state.settings.request_timeout_s) for name in MODELS))
    if models_dir := state.settings.models_dir:
        for model in found:
            for version in model.versions:
                try:
                    path = models_dir / model.name / str(version.version)
                    version.card = await asyncio.to_thread(read_card, path)
                except CardError as error:
                    _log.warning("no model card: %s", error)
    return ModelsResponse(models=found)


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """In Prometheus' text format, with the states of the models as the model server knows them now."""
    state: GatewayState = request.state.gateway
    gauges = state.metrics
    for name, model in (await _all_statuses(state)).items():
        serving, newest, failed = math.nan, math.nan, math.nan  # not known
        if isinstance(model, Model) and model.versions:
            serving = math.nan if model.serving is None else model.serving
            newest = model.versions[0].version
            failed = bool(_failed(model))
        gauges.model_available.labels(name).set(not math.isnan(serving))
        gauges.serving_version.labels(name).set(serving)
        gauges.newest_version.labels(name).set(newest)
        gauges.newest_failed.labels(name).set(failed)
    return Response(generate_latest(gauges.registry), media_type=CONTENT_TYPE_LATEST)


async def unready_models(state: GatewayState) -> list[dict[str, str]]:
    """Returns ``model`` and ``detail`` for each model that isn't available; nothing if all of them are."""
    now, seen = time.monotonic(), state.available_at
    faults = []
    for name, model in (await _all_statuses(state)).items():
        if isinstance(model, ModelServerError):
            if not isinstance(model, DeadlineError) or now - seen.get(name, -math.inf) >= STALE_STATUS_S:
                faults.append({"model": name, "detail": problem_of(model).detail})
        elif model.serving is not None:
            seen[name] = now
        else:
            faults.append({"model": name, "detail": model.detail or ""})
    return faults


async def _all_statuses(state: GatewayState) -> dict[str, Model | ModelServerError]:
    """Returns each model without its cards, or why it is not known."""

    async def status(name: str) -> Model | ModelServerError:
        try:
            return await model_status(state, name, state.settings.ready_timeout_s)
        except ModelServerError as error:
            return error

    return dict(zip(MODELS, await asyncio.gather(*map(status, MODELS)), strict=True))


async def model_status(state: GatewayState, name: str, timeout_s: float) -> Model:
    """Returns a model without its cards, and without versions if the model server does not know it.

    ``serving``: the version with the configured label; without a label, the newest AVAILABLE. Raises ModelServerError.
    """
    client = state.inference.client
    label = client.version_label
    versions: Sequence[VersionStatus] = ()
    serving = None
    try:
        versions = await client.model_versions(name, timeout_s=timeout_s)
        if label is not None:
            serving = await client.labelled_version(name, timeout_s=timeout_s)
        else:
            serving = next((one.version for one in versions if one.state == "AVAILABLE"), None)
    except ModelNotServedError:
        pass
    found = []
    for one in versions:
        error = None if one.error_code == "OK" else VersionError(code=one.error_code, message=one.error_message)
        found.append(ModelVersion(version=one.version, state=one.state, error=error, card=None))
    model = Model(name=name, status="available", detail=None, serving=serving, versions=found)
    if failed := _failed(model):
        assert failed.error
        then = "nothing serves" if serving is None else f"version {serving} serves on"
        model.detail = f"version {failed.version}: {failed.error.code}: {failed.error.message}; {then}"
        model.status = "degraded"
    elif serving is None:
        states = ", ".join(f"{one.version} {one.state}" for one in versions) or "there are none"
        model.detail = f"no version{f' with the label {label}' if label else ''} is AVAILABLE ({states})"
    if serving is None:
        model.status = "unavailable"
    return model


def _failed(model: Model) -> ModelVersion | None:
    """Returns the newest version that ended with an error, unless a newer one serves."""
    newer = (one for one in model.versions if one.version >= (model.serving or 0))
    return next((one for one in newer if one.error and one.state == "END"), None)
