"""One version of a model, from the moment it is wanted until it is unloaded."""

from dataclasses import dataclass
from enum import IntEnum

from serving.model_server.errors import ServingError
from serving.model_server.runner import Runner
from serving.storage import StoredVersion


class State(IntEnum):
    """The states of a version's life, in their order, with the numbers of the API."""

    START = 10
    """Wanted, not begun."""
    LOADING = 20
    """Being loaded and warmed up, or waiting for another try."""
    AVAILABLE = 30
    """Answering requests."""
    UNLOADING = 40
    """Answering the last of its requests, accepting none."""
    END = 50
    """Unloaded, or failed to load."""


@dataclass
class Version:
    """Where a version stands. Only its model's thread changes it, except for ``requests``."""

    number: int
    stored: StoredVersion
    state: State = State.START
    error: ServingError | None = None
    """Why the last attempt to load failed."""
    wanted: bool = True
    """Whether it has been wanted in every round so far."""
    attempts: int = 0
    retry_at: float = 0.0
    """When the next attempt to load is due, by ``time.monotonic``."""
    runner: Runner | None = None
    requests: int = 0
    """How many requests are using it now."""
