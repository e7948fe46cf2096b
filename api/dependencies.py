"""What lives as long as the app, and how endpoints receive it."""

from typing import Annotated, TypedDict

from fastapi import Depends, Request

from api.inference import Inference
from api.metrics import Metrics
from api.seed_index import SeedIndexes
from api.settings import Settings
from api.stories import Stories


class State(TypedDict):
    """What ``lifespan`` opens and every request can reach."""

    settings: Settings
    metrics: Metrics
    inference: Inference
    indexes: SeedIndexes
    stories: Stories


async def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.state.metrics
    return metrics


async def _inference(request: Request) -> Inference:
    inference: Inference = request.state.inference
    return inference


async def _indexes(request: Request) -> SeedIndexes:
    indexes: SeedIndexes = request.state.indexes
    return indexes


async def _stories(request: Request) -> Stories:
    stories: Stories = request.state.stories
    return stories


SettingsDep = Annotated[Settings, Depends(_settings)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
InferenceDep = Annotated[Inference, Depends(_inference)]
SeedIndexesDep = Annotated[SeedIndexes, Depends(_indexes)]
StoriesDep = Annotated[Stories, Depends(_stories)]
