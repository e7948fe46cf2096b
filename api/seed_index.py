"""Which digit each of a generator version's first seeds gives, as the version itself tells.

The index was made when the version was exported, and comes through the model server with it (signature ``seed_index``
of ``serving.contract``). It is fetched once a version, by the first request that needs it, so that asking for sevens
costs no more than asking for anything: the seeds of sevens are chosen here.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.deadlines import TimeLeft
from api.inference import Inference
from api.metrics import Metrics
from serving.client import ContractError, DeadlineError, NoSignatureError, Prediction
from serving.contract import (
    CLASSES,
    CONFIDENCES,
    CURATED,
    DIGITS,
    GENERATOR,
    INDEX_PAGE,
    INDEXED_SEEDS,
    LOGITS,
    NOT_INDEXED,
    SEED_INDEX,
)

MOST_SEEDS: Final = 2**20
"""The longest index that is believed: 6 MB."""

LEAST_CONFIDENCE: Final = 0.9
"""Below this an image doesn't count as any digit: another reader may well see another one in it."""

_PAGES_A_CALL: Final = 16
_VERSIONS_KEPT: Final = 4

Seeds = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class SeedIndex:
    """The index of one version: entry s is about seed s.

    ``digits``: uint8 [S], 0 to 9 (NOT_INDEXED where nothing is known). ``confidences``: float32 [S]. ``logits``:
    float32 [S], the discriminator's. ``curated``: bool [S].
    """

    version: int
    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    logits: NDArray[np.float32]
    curated: NDArray[np.bool_]
    _found: dict[tuple[int | None, bool], Seeds] = field(default_factory=dict, init=False, repr=False)

    def seeds(self, digit: int | None, curated: bool) -> Seeds:
        """Returns the seeds that clearly give ``digit`` (None: any), only curated ones if asked; ascending."""
        key = digit, curated
        if key not in self._found:
            fitting = self.digits != NOT_INDEXED if digit is None else self.digits == digit
            fitting &= self.confidences >= LEAST_CONFIDENCE
            self._found[key] = np.flatnonzero(fitting & self.curated if curated else fitting).astype(np.uint32)
        return self._found[key]

    def places(self, seeds: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which of ``seeds`` are in the index, bool [N], and where in it those are."""
        wanted = np.array(seeds, np.int64)
        known = wanted < len(self.digits)
        known[known] = self.digits[wanted[known]] != NOT_INDEXED
        return known, wanted[known]


class SeedIndexes:
    """The indexes of the versions in use. ``timeout_s``: what the model server has for each call of a fetch."""

    def __init__(self, inference: Inference, metrics: Metrics, timeout_s: float) -> None:
        self._inference = inference
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._kept: OrderedDict[int, SeedIndex | None] = OrderedDict()
        self._fetching: dict[int, asyncio.Task[SeedIndex | None]] = {}
        self._newest: int | None = None

    async def newest(self, time_left: TimeLeft, *, certain: bool) -> SeedIndex | None:
        """Returns the index of the generator's newest version, None if that has none.

        Unless it has to be ``certain``, this is the version that was the newest when somebody last looked: no call
        is made. Whoever then finds another version at work says so by ``forget_newest``.

        Raises ModelServerError; VersionNotFoundError if the version is withdrawn meanwhile.
        """
        version = self._newest
        if version is None or certain:
            try:
                version = (await self._pages(range(1), None, time_left())).version
            except NoSignatureError:
                self._newest = None
                return None
        index = await self.of(version, time_left)
        self._newest = version if index else None  # one without is asked each time whether it still is the newest
        return index

    def forget_newest(self) -> None:
        """Has ``newest`` ask the model server the next time."""
        self._newest = None

    async def of(self, version: int, time_left: TimeLeft) -> SeedIndex | None:
        """Returns the index of a version, None if it has none. Requests that need the same one share one fetch.

        Raises ModelServerError; VersionNotFoundError if there is no such version.
        """
        if version in self._kept:
            self._kept.move_to_end(version)
            return self._kept[version]
        if version not in self._fetching:
            self._fetching[version] = asyncio.create_task(self._fetch(version))
            self._fetching[version].add_done_callback(lambda task: self._fetched(version, task))
        try:
            async with asyncio.timeout(time_left()):
                return await asyncio.shield(self._fetching[version])  # whoever leaves takes nobody along
        except TimeoutError as error:
            raise DeadlineError(GENERATOR, "DEADLINE_EXCEEDED", "the seed index took too long") from error

    def _fetched(self, version: int, task: "asyncio.Task[SeedIndex | None]") -> None:
        del self._fetching[version]
        if task.cancelled() or task.exception():
            return  # who waits for it is told; the next request tries again
        self._kept[version] = task.result()
        if len(self._kept) > _VERSIONS_KEPT:
            self._kept.popitem(last=False)

    async def _fetch(self, version: int) -> SeedIndex | None:
        try:
            # A page beyond the end is cut off below, so that one call is enough for 65,536 seeds.
            first = await self._pages(range(_PAGES_A_CALL), version, self._timeout_s)
            length = int(first.outputs[INDEXED_SEEDS][0])
            if not 0 <= length <= MOST_SEEDS:
                raise self._broken(f"an index of {length} seeds")
            rest = range(_PAGES_A_CALL, -(-length // INDEX_PAGE), _PAGES_A_CALL)
            parts = [range(start, start + _PAGES_A_CALL) for start in rest]
            answers = [first, *[await self._pages(part, version, self._timeout_s) for part in parts]]
        except NoSignatureError:
            return None
        digits, confidences, logits, curated = (
            np.concatenate([answer.outputs[name].ravel() for answer in answers])[:length]
            for name in (DIGITS, CONFIDENCES, LOGITS, CURATED)
        )
        if ((digits >= CLASSES) & (digits != NOT_INDEXED)).any():
            raise self._broken(f"an index with the digit {digits[digits != NOT_INDEXED].max()}")
        self._metrics.index_fetches.labels(str(version)).inc()
        return SeedIndex(version, digits, confidences, logits, curated != 0)

    async def _pages(self, pages: range, version: int | None, timeout_s: float) -> Prediction:
        rows = np.array(pages, np.int64)
        return await self._inference.predict(
            GENERATOR, rows, signature=SEED_INDEX, version=version, timeout_s=timeout_s
        )

    def _broken(self, what: str) -> ContractError:
        error = ContractError(GENERATOR, "BAD_ANSWER", what)
        self._metrics.upstream_errors.labels(error.model, error.code).inc()
        return error
