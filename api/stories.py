"""How each version of the generator learned, as the version itself tells.

The story was exported with the version, and comes through the model server with it (signature ``story`` of
``serving.contract``), so the gateway needs no file of the model's. It is fetched once a version.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from api.deadlines import TimeLeft
from api.inference import Inference
from api.metrics import Metrics
from serving.client import ContractError, Prediction
from serving.contract import GENERATOR, STORY, STORY_BYTES, STORY_PAGE

MOST_BYTES: Final = 2**24
"""The longest story that is believed."""

_PAGES_A_CALL: Final = 64
_VERSIONS_KEPT: Final = 2


@dataclass(frozen=True)
class Story:
    """A version's story, a JSON document."""

    model: str
    version: int
    content: bytes

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Stories:
    """The stories of the versions in use."""

    def __init__(self, inference: Inference, metrics: Metrics) -> None:
        self._inference = inference
        self._metrics = metrics
        self._kept: OrderedDict[int, Story] = OrderedDict()

    async def of(self, version: int | None, time_left: TimeLeft) -> Story:
        """Returns the story of a version of the generator, None meaning the newest.

        Raises ModelServerError; NoSignatureError if the version has no story.
        """
        if version is not None and version in self._kept:
            return self._kept[version]
        first = await self._pages(range(1), version, time_left)
        if first.version in self._kept:
            return self._kept[first.version]
        length = int(first.outputs[STORY_BYTES][0])
        if not 0 < length <= MOST_BYTES:
            self._metrics.upstream_errors.labels(GENERATOR, "BAD_ANSWER").inc()
            raise ContractError(GENERATOR, "BAD_ANSWER", f"a story of {length} bytes")
        last = -(-length // STORY_PAGE)
        parts = [range(start, min(start + _PAGES_A_CALL, last)) for start in range(1, last, _PAGES_A_CALL)]
        answers = [first, *[await self._pages(part, first.version, time_left) for part in parts]]
        content = b"".join(answer.outputs[STORY].tobytes() for answer in answers)[:length]
        story = self._kept[first.version] = Story(first.model, first.version, content)
        if len(self._kept) > _VERSIONS_KEPT:
            self._kept.popitem(last=False)
        return story

    async def _pages(self, pages: range, version: int | None, time_left: TimeLeft) -> Prediction:
        rows = np.array(pages, np.int64)
        return await self._inference.predict(GENERATOR, rows, signature=STORY, version=version, timeout_s=time_left())
