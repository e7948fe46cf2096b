"""The training stories of generator versions, which the model server returns (signature ``story`` of the contract)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.digits.carried import Carried
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.contract import STORY, STORY_BYTES
from serving.tf_serving.client import Array

MAX_BYTES: Final = 2**24
"""The longest story that is accepted."""


@dataclass(frozen=True)
class Story:
    """The story of a version: a JSON document."""

    version: int
    content: bytes


def stories(inference: Inference, metrics: Metrics, timeout_s: float) -> Carried[Story]:
    """Returns the stories of the versions in use. ``timeout_s``: for each call of a fetch."""
    return Carried(inference, metrics, timeout_s, STORY, STORY_BYTES, MAX_BYTES, _read)


def _read(version: int, entries: Mapping[str, Array]) -> Story:
    if not len(entries[STORY]):
        raise ValueError("0 bytes")
    return Story(version, entries[STORY].tobytes())
