"""A walk through the seeds, one after the other, which keeps the digits that a dataset wants.

What it keeps is decided by the models' versions and the wish alone. What the seed index knows is chosen before it is
made, so only what is kept has to be made. Beyond the index, seeds are looked at in blocks with the same bounds wherever
the walk begins, so that going on at a seed gives what an uninterrupted walk gives from there on.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.deadlines import TimeLeft
from api.inference import MAX_BATCH, Inference
from api.metrics import Metrics
from api.problems import ProblemError, at_pointer, invalid
from api.seed_index import SeedIndex, SeedIndexes
from serving.client import Array, VersionNotFoundError
from serving.contract import (
    CLASSES,
    CLASSIFIER,
    DISCRIMINATOR,
    GENERATOR,
    IMAGES,
    LOGITS,
    MAX_SEED,
    NOT_INDEXED,
    PROBABILITIES,
)
from serving.dataset import Records, record

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

    def __len__(self) -> int:
        return len(self.digits)

    def passing(self, wish: Wish) -> NDArray[np.bool_]:
        return (self.confidences >= np.float32(wish.confidence_floor)) & (self.logits >= wish.logit_floor)


_NOTHING: Final = _Looks(np.empty(0, np.uint8), np.empty(0, np.float32), np.empty(0, np.float32))


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
        images = await self._generate([self._wish.first_seed], version)
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
        known = self._known()
        chosen = self._wish.first_seed + self._choose(known)
        batches = [chosen[start : start + MAX_BATCH] for start in range(0, len(chosen), MAX_BATCH)]
        async with aclosing(_in_order(self._make(batch) for batch in batches)) as made:
            async for part in made:
                yield part
        if not self._left:
            return
        in_vain = 0
        blocks = range((self._wish.first_seed + len(known)) // MAX_BATCH, (MAX_SEED + 1) // MAX_BATCH)
        async with aclosing(_in_order(self._look(block * MAX_BATCH) for block in blocks)) as looked:
            async for found in looked:
                kept = found[self._choose(_Looks(found["digit"], found["confidence"], found["logit"]))]
                in_vain = 0 if len(kept) else in_vain + MAX_BATCH
                if in_vain >= MOST_IN_VAIN:
                    raise self._scarce(f"None of {in_vain} seeds in a row has {self._wish.kind}")
                if len(kept):
                    yield kept
                if not self._left:
                    return
        raise self._scarce("The seeds end there")

    def _known(self) -> "_Looks":
        """Returns what the index knows, from the first seed to the end of a block."""
        if self._index is None:
            return _NOTHING
        unknown = np.flatnonzero(self._index.digits == NOT_INDEXED)
        end = int(unknown[0]) if len(unknown) else len(self._index.digits)
        rows = slice(self._wish.first_seed, end // MAX_BATCH * MAX_BATCH)
        return _Looks(self._index.digits[rows], self._index.confidences[rows], self._index.logits[rows])

    def _choose(self, looks: "_Looks") -> NDArray[np.int64]:
        """Returns the places of those that pass and that the quotas have room for, and takes them off."""
        passing = looks.passing(self._wish)
        chosen = np.zeros(len(passing), np.bool_)
        for digit in range(CLASSES):
            chosen[np.flatnonzero(passing & (looks.digits == digit))[: self._quotas[digit]]] = True
        places = np.flatnonzero(chosen)[: self._left]
        self._quotas -= np.bincount(looks.digits[places], minlength=CLASSES)
        self._left -= len(places)
        return places

    async def _make(self, seeds: NDArray[np.int64]) -> Records:
        """Returns the digits of seeds that the index knows."""
        assert self._index is not None
        found = np.empty(len(seeds), record())
        found["seed"], found["digit"] = seeds, self._index.digits[seeds]
        found["confidence"], found["logit"] = self._index.confidences[seeds], self._index.logits[seeds]
        found["pixels"] = (await self._generate(seeds.tolist(), self.versions[GENERATOR]))[..., 0]
        self._metrics.labels.labels("index").inc(len(seeds))
        return found

    async def _look(self, start: int) -> Records:
        """Returns the digits of a block of seeds, from the wish's first one on."""
        seeds = range(start, start + MAX_BATCH)
        images = await self._generate(seeds, self.versions[GENERATOR])
        (digits, confidences), logits = await asyncio.gather(self._read(images), self._score(images))
        self._metrics.labels.labels("classifier").inc(len(images))
        found = np.empty(len(images), record())
        found["seed"], found["digit"], found["pixels"] = np.arange(start, seeds.stop), digits, images[..., 0]
        found["confidence"], found["logit"] = confidences, logits
        return found[found["seed"] >= np.uint64(self._wish.first_seed)]

    async def _generate(self, seeds: Sequence[int], version: int | None) -> Array:
        prediction = await self._inference.predict(GENERATOR, seeds, version=version, timeout_s=self._time_left())
        self.versions[GENERATOR] = prediction.version
        self._metrics.images.labels(str(prediction.version)).inc(len(seeds))
        return prediction.outputs[IMAGES]

    async def _read(self, images: Array) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        probabilities = await self._ask(CLASSIFIER, PROBABILITIES, images)
        return probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1)

    async def _score(self, images: Array) -> NDArray[np.float32]:
        return await self._ask(DISCRIMINATOR, LOGITS, images)

    async def _ask(self, model: str, output: str, images: Array) -> Array:
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


async def _in_order(looks: Iterator[Coroutine[None, None, Records]]) -> AsyncGenerator[Records]:
    """Yields what each of ``looks`` returns, in their order; _AHEAD of them are under way while the caller works."""
    under_way: deque[asyncio.Task[Records]] = deque()
    try:
        for look in looks:
            under_way.append(asyncio.create_task(look))
            if len(under_way) > _AHEAD:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
