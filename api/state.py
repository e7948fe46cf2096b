"""What lives as long as the app. Routes have it as ``request.state.gateway``."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from api.digits.carried import Carried, SeedIndex, Story
from api.middleware.admission import AdmissionControl
from api.settings import Settings
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference

KEY: Final = "gateway"


@dataclass
class GatewayState:
    """What ``lifespan`` opens and every connection and request can reach."""

    settings: Settings
    metrics: Metrics
    admission: AdmissionControl
    inference: Inference
    indexes: Carried[SeedIndex]
    stories: Carried[Story]
    draining: bool = False  # the gateway is about to stop: then it isn't ready, while it still answers
    available_at: dict[str, float] = field(default_factory=dict)  # when a model was AVAILABLE last, by time.monotonic

    def __post_init__(self) -> None:
        self.large_bodies = asyncio.Semaphore(max(1, self.settings.max_waiting_bytes // self.settings.max_body_bytes))
        self.waiting_bodies = asyncio.Semaphore(256)  # each takes up to 256 KB: what is read of it at once
