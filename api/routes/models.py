"""GET /models: the models that the routes need, with their versions, states and model cards."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request

from api import openapi
from api.http.schemas import Model, ModelsResponse, ModelVersion, VersionError
from api.state import GatewayState
from api.telemetry.model_status import model_status
from serving.contract import MODELS
from serving.versions.model_card import CardError, read_card

router = APIRouter()

_log = logging.getLogger(__name__)


@router.get(
    "/models",
    summary="Models, versions and model cards",
    responses=openapi.failures(*openapi.UPSTREAM),
)
async def models(request: Request) -> ModelsResponse:
    """As the model server knows them; the cards are read from the directory in `DIGITGAN_MODELS_DIR`."""
    return ModelsResponse(models=await asyncio.gather(*(_model(name, request.state.gateway) for name in MODELS)))


async def _model(name: str, state: GatewayState) -> Model:
    status = await model_status(state.inference.client, name, state.settings.request_timeout_s)
    return Model(
        name=name,
        status=status.word,
        detail=status.detail,
        serving=status.serving.version if status.serving else None,
        versions=[
            ModelVersion(
                version=one.version,
                state=one.state,
                error=None if one.error_code == "OK" else VersionError(code=one.error_code, message=one.error_message),
                card=await _card(state.settings.models_dir, name, one.version),
            )
            for one in status.versions
        ],
    )


async def _card(models_dir: Path | None, name: str, version: int) -> dict[str, Any] | None:
    """Returns the model card of a version; None where there is none that can be read."""
    if models_dir is None:
        return None
    try:
        return await anyio.to_thread.run_sync(read_card, models_dir / name / str(version))
    except CardError as error:
        _log.warning("no model card: %s", error)
        return None
