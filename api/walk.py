"""A walk through the seeds, one after the other, which keeps the digits that a dataset wants.

What it keeps is decided by the models' versions and the wish alone. Seeds are looked at in blocks with the same bounds
wherever the walk begins, so that going on at a seed gives what an uninterrupted walk gives from there on.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.inference import MAX_BATCH, Inference, Rows, TimeLeft
from api.metrics import Metrics
from api.problems import ProblemError, at_pointer, invalid
from api.seed_index import SeedIndex, SeedIndexes
from serving.client import VersionNotFoundError
from serving.contract import CLASSES, CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, MAX_SEED, PROBABILITIES
from serving.dataset import Records, record
from serving.noise import noise_from_seeds

MOST_IN_VAIN: Final = 2**16
"""Seeds in a row that bring nothing before the walk gives up."""

_TELLING: Final = 4096
"""Seeds of an index from which on it tells which digits there are."""

_AHEAD: Final = 2
"""Blocks under way while the caller works on one."""


@dataclass(frozen=True)
class Wish:
    """What a dataset wants: ``count`` digits from ``first_seed`` on, of each at most its quota (None: any)."""

    count: int
    quotas: tuple[int, ...] | None
    confidence_floor: float
    logit_floor: float
    first_seed: int

    @property
    def kind(self) -> str:
        """The floors, in words."""
        logit = "" if self.logit_floor == -np.inf else f" and a logit of {self.logit_floor:g}"
        return f"a confidence of {self.confidence_floor:g}{logit}"


@dataclass(frozen=True)
class _Looks:
    """What digits look like: ``digits`` uint8 [N], ``confidences`` float32 [N], ``logits`` float32 [N]."""

    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    logits: NDArray[np.float32]

    def passing(self, wish: Wish) -> NDArray[np.bool_]:
        return (self.confidences >= np.float32(wish.confidence_floor)) & (self.logits >= wish.logit_floor)


class Walk:
    """The digits of one dataset, all by the same versions of the models: ``versions``, known once ``open`` returns."""

    def __init__(self, wish: Wish, inference: Inference, metrics: Metrics, time_left: TimeLeft) -> None:
        self.versions: dict[str, int] = {}
        self._wish = wish
        self._inference = inference
        self._metrics = metrics
        self._time_left = time_left
        self._index: SeedIndex | None = None
        self._left = wish.count
        self._quotas = np.array(wish.quotas or (wish.count,) * CLASSES)

    async def open(self, version: int | None, indexes: SeedIndexes) -> None:
        """Finds out the versions, by asking each model once, and fetches the seed index.

        Raises ModelServerError; ProblemError (422) if a long enough index has none of a digit that is wanted.
        """
        images = await self._generate(0, version)
        await asyncio.gather(self._read(images), self._score(images))
        try:
            self._index = await indexes.of(self.versions[GENERATOR], self._time_left)
        except VersionNotFoundError:  # withdrawn just now: the next call of the generator says so
            self._index = None
        if self._index is not None and len(self._index.digits) >= _TELLING:
            self._check(self._index)

    async def parts(self) -> AsyncGenerator[Records]:
        """Yields the digits in the order of their seeds, in parts of at most MAX_BATCH.

        Raises ModelServerError; ProblemError (422) after MOST_IN_VAIN seeds in a row that bring nothing.
        """
        blocks = iter(range(self._wish.first_seed // MAX_BATCH, (MAX_SEED + 1) // MAX_BATCH))
        under_way: deque[asyncio.Task[Records]] = deque()
        in_vain = 0
        try:
            while self._left:
                while len(under_way) <= _AHEAD and (block := next(blocks, None)) is not None:
                    under_way.append(asyncio.create_task(self._look(block * MAX_BATCH)))
                if not under_way:
                    raise self._scarce("The seeds end there")
                kept = self._keep(await under_way.popleft())
                in_vain = 0 if len(kept) else in_vain + MAX_BATCH
                if in_vain >= MOST_IN_VAIN:
                    raise self._scarce(f"None of {in_vain} seeds in a row has {self._wish.kind}")
                if len(kept):
                    yield kept
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _keep(self, found: Records) -> Records:
        """Returns those that the quotas have room for, and takes them off."""
        kept = np.zeros(len(found), np.bool_)
        for digit in range(CLASSES):
            kept[np.flatnonzero(found["digit"] == digit)[: self._quotas[digit]]] = True
        chosen: Records = found[np.flatnonzero(kept)[: self._left]]
        self._quotas -= np.bincount(chosen["digit"], minlength=CLASSES)
        self._left -= len(chosen)
        return chosen

    async def _look(self, start: int) -> Records:
        """Returns the digits of a block that pass the floors and are still wanted."""
        seeds = range(start, start + MAX_BATCH)
        wanted = self._quotas > 0
        looks = self._known(seeds)
        if looks is not None and not (looks.passing(self._wish) & wanted[looks.digits]).any():
            return np.empty(0, record())
        images = await self._generate(start, self.versions[GENERATOR])
        if looks is None:
            (digits, confidences), logits = await asyncio.gather(self._read(images), self._score(images))
            looks = _Looks(digits, confidences, logits)
            self._metrics.labels.labels("classifier").inc(len(images))
        else:
            self._metrics.labels.labels("index").inc(len(images))
        found = np.empty(len(images), record())
        found["seed"] = np.arange(start, start + MAX_BATCH)
        found["digit"], found["confidence"], found["logit"] = looks.digits, looks.confidences, looks.logits
        found["pixels"] = images[..., 0]
        chosen: Records = found[looks.passing(self._wish) & wanted[looks.digits] & (found["seed"] >= self._first)]
        return chosen

    @property
    def _first(self) -> np.uint64:
        return np.uint64(self._wish.first_seed)

    def _known(self, seeds: range) -> _Looks | None:
        if self._index is None or not self._index.knows(seeds):
            return None
        rows = slice(seeds.start, seeds.stop)
        return _Looks(self._index.digits[rows], self._index.confidences[rows], self._index.logits[rows])

    async def _generate(self, start: int, version: int | None) -> Rows:
        noise = noise_from_seeds(range(start, start + MAX_BATCH))
        prediction = await self._inference.predict(GENERATOR, noise, version=version, timeout_s=self._time_left())
        self.versions[GENERATOR] = prediction.version
        self._metrics.images.labels(str(prediction.version)).inc(len(noise))
        return prediction.outputs[IMAGES]

    async def _read(self, images: Rows) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        probabilities = await self._ask(CLASSIFIER, PROBABILITIES, images)
        return probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1)

    async def _score(self, images: Rows) -> NDArray[np.float32]:
        return await self._ask(DISCRIMINATOR, LOGITS, images)

    async def _ask(self, model: str, output: str, images: Rows) -> Rows:
        version = self.versions.get(model)
        prediction = await self._inference.predict(model, images, version=version, timeout_s=self._time_left())
        self.versions[model] = prediction.version
        return prediction.outputs[output]

    def _check(self, index: SeedIndex) -> None:
        known = index.digits < CLASSES
        looks = _Looks(index.digits[known], index.confidences[known], index.logits[known])
        found = np.bincount(looks.digits[looks.passing(self._wish)], minlength=CLASSES)
        wanted = self._quotas > 0 if self._wish.quotas else np.ones(CLASSES, np.bool_)
        missing = np.flatnonzero(wanted & (found == 0))
        if len(missing) == CLASSES or (self._wish.quotas and len(missing)):
            digits = ", ".join(map(str, missing))
            raise self._scarce(f"None of the {len(looks.digits)} indexed seeds is a {digits} with {self._wish.kind}")

    def _scarce(self, detail: str) -> ProblemError:
        fields = ["confidence_floor"] + ["logit_floor"] * (self._wish.logit_floor != -np.inf)
        return invalid(*(at_pointer(f"/{field}", detail) for field in fields))
