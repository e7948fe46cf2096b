"""The training stories of generator versions, which the model server returns (signature ``story`` of the contract)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from api.digits.carried import Carried, PagedSignature
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.contract import STORY, STORY_BYTES, STORY_PAGE
from serving.tf_serving.client import Array

MAX_BYTES: Final = 2**24
"""The longest story that is accepted."""

_PAGES_PER_CALL: Final = 16


@dataclass(frozen=True)
class Story:
    """The story of a version: a JSON document."""

    version: int
    content: bytes

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def stories(inference: Inference, metrics: Metrics, timeout_s: float) -> Carried[Story]:
    """Returns the stories of the versions in use. ``timeout_s``: for each call of a fetch."""
    signature = PagedSignature(STORY, STORY_BYTES, STORY_PAGE, _PAGES_PER_CALL, MAX_BYTES, _read)
    return Carried(inference, metrics, timeout_s, signature)


def _read(version: int, entries: Mapping[str, Array]) -> Story:
    if not len(entries[STORY]):
        raise ValueError("0 bytes")
    return Story(version, entries[STORY].tobytes())
