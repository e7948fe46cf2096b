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

MAX_WAITING_BODIES: Final = 256
"""Large bodies that wait for others. Each takes up to 256 KB: what is read of it at once."""


@dataclass
class GatewayState:
    """What ``lifespan`` opens and every connection and request can reach.

    Attributes:
        draining: the gateway is about to stop: then it isn't ready, while it still answers.
        large_bodies: request bodies of more than LARGE_BODY_BYTES in memory.
        waiting_bodies: those that wait for memory.
        available_at: when each model was AVAILABLE last, in the time of ``time.monotonic``.
    """

    settings: Settings
    metrics: Metrics
    admission: AdmissionControl
    inference: Inference
    indexes: Carried[SeedIndex]
    stories: Carried[Story]
    draining: bool = False
    available_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.large_bodies = asyncio.Semaphore(max(1, self.settings.max_waiting_bytes // self.settings.max_body_bytes))
        self.waiting_bodies = asyncio.Semaphore(MAX_WAITING_BODIES)
