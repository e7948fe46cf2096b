"""Digits in the making: all of one version, in batches, with their labels if they are wanted.

Digits of a kind (``digit``, ``curated``) come from seeds that a version's index names, and mean nothing in another
version. The newest version is not asked for first: the seeds are chosen from the index of the version that was the
newest a moment ago, the generator is asked for its newest, and if the answer is by another version, everything starts
again with that one's index. So a request for sevens makes the same calls as any other.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import numpy as np

from api import problems
from api.deadlines import TimeLeft
from api.images import Pixels
from api.inference import Inference
from api.labels import Labels, label
from api.metrics import Metrics
from api.problems import ProblemError, at_pointer, invalid
from api.seed_index import SeedIndex, SeedIndexes
from api.sources import Pick, SeedSource, Source
from serving.client import Prediction, VersionNotFoundError
from serving.contract import GENERATOR, IMAGES

_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Digits:
    """Digits and who made them. ``pixels``: uint8 [N, 28, 28]. ``labels``: of each, where they were wanted."""

    model: str
    version: int
    pixels: Pixels
    labels: Labels | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Model": self.model, "X-Model-Version": str(self.version)}


def digits_of(prediction: Prediction, metrics: Metrics, labels: Labels | None = None) -> Digits:
    """Returns the generator's answer, counted."""
    pixels: Pixels = prediction.outputs[IMAGES][..., 0]
    metrics.images.labels(str(prediction.version)).inc(len(pixels))
    return Digits(prediction.model, prediction.version, pixels, labels)


@dataclass(frozen=True)
class Run:
    """A generator at work on ``source``. ``first`` is its first answer, and ``rest`` gives the others."""

    source: Source
    first: Prediction
    rest: AsyncGenerator[Prediction]
    index: SeedIndex | None


class Maker:
    """What makes the digits of one request. ``labelled``: with labels. ``time_left``: for each call."""

    def __init__(
        self, inference: Inference, indexes: SeedIndexes, metrics: Metrics, *, labelled: bool, time_left: TimeLeft
    ) -> None:
        self._inference = inference
        self._indexes = indexes
        self._metrics = metrics
        self._labelled = labelled
        self._time_left = time_left

    async def complete(self, plan: Source | Pick, version: int | None) -> tuple[Source, Digits]:
        """Returns all digits of ``plan``, and what they were made from.

        If their version is withdrawn halfway, its successor starts from the beginning.

        Raises ModelServerError, ProblemError.
        """
        for _ in range(_ATTEMPTS):
            try:
                run = await self.start(plan, version)
                parts = [part async for part in self.parts(run)]
            except VersionNotFoundError:
                if version is not None:
                    raise
            else:
                return run.source, _joined(parts)
        raise _replaced()

    async def start(self, plan: Source | Pick, version: int | None) -> Run:
        """Returns a run whose first batch is there. Raises ModelServerError, ProblemError."""
        if not isinstance(plan, Pick):
            run = await self._begin(plan, version, None)
            return run if not self._labelled else await self._with_index(run)
        asked, certain = version, False
        for _ in range(_ATTEMPTS):
            try:
                index = await self._index(asked, certain)
                if index is None:
                    raise _no_index(plan)
                chosen = _chosen(plan, index)
                if chosen is None:
                    if asked is None and not certain:  # a newer version may have more
                        certain = True
                        continue
                    raise _too_few(plan, index)
                run = await self._begin(chosen, asked, index)
            except VersionNotFoundError:
                if version is not None:
                    raise
                asked, certain = None, True
            else:
                if run.first.version == index.version:
                    return run
                await run.rest.aclose()
                self._indexes.forget_newest()
                asked = run.first.version
        raise _replaced()

    async def parts(self, run: Run) -> AsyncGenerator[Digits]:
        """Yields the digits of ``run``, in batches. Raises ModelServerError."""
        done = 0
        async with aclosing(run.rest):
            part = await self._part(run, run.first, done)
            yield part
            async for prediction in run.rest:
                done += len(part.pixels)
                part = await self._part(run, prediction, done)
                yield part

    async def _part(self, run: Run, prediction: Prediction, start: int) -> Digits:
        labels = None
        if self._labelled:
            images = prediction.outputs[IMAGES]
            seeds = run.source.seeds[start : start + len(images)] if isinstance(run.source, SeedSource) else None
            labels = await label(images, seeds, run.index, self._inference, self._metrics, self._time_left())
        return digits_of(prediction, self._metrics, labels)

    async def _begin(self, source: Source, version: int | None, index: SeedIndex | None) -> Run:
        rest = self._inference.predict_all(GENERATOR, source.batches(), version=version, time_left=self._time_left)
        return Run(source, await anext(rest), rest, index)

    async def _index(self, version: int | None, certain: bool) -> SeedIndex | None:
        if version is None:
            return await self._indexes.newest(self._time_left, certain=certain)
        return await self._indexes.of(version, self._time_left)

    async def _with_index(self, run: Run) -> Run:
        """Returns ``run`` with its version's index, which knows the labels of some seeds."""
        if not isinstance(run.source, SeedSource):
            return run
        try:
            index = await self._indexes.of(run.first.version, self._time_left)
        except VersionNotFoundError:  # withdrawn already: then the classifier knows them all
            index = None
        except BaseException:
            await run.rest.aclose()
            raise
        return Run(run.source, run.first, run.rest, index)


def _chosen(pick: Pick, index: SeedIndex) -> SeedSource | None:
    """Returns seeds from those in ``index`` that fit, none of them twice; None if there are too few."""
    fitting = index.seeds(pick.digit, pick.curated)
    if pick.start is not None:
        following = fitting[fitting >= pick.start][: len(pick)].tolist()
        return SeedSource(following, chosen=True) if following else None
    if len(pick) > len(fitting):
        return None
    return SeedSource(np.random.default_rng().choice(fitting, len(pick), replace=False).tolist(), chosen=True)


def _joined(parts: list[Digits]) -> Digits:
    labels = [part.labels for part in parts if part.labels is not None]
    return Digits(
        parts[0].model,
        parts[0].version,
        np.concatenate([part.pixels for part in parts]),
        Labels.joined(labels) if labels else None,
    )


def _no_index(pick: Pick) -> ProblemError:
    detail = "the generator's version has no index of its seeds"
    return ProblemError(
        problems.NO_SEED_INDEX, detail, errors=[at_pointer(f"/{field}", detail) for field in pick.fields]
    )


def _too_few(pick: Pick, index: SeedIndex) -> ProblemError:
    found = len(index.seeds(pick.digit, pick.curated))
    kind = f"{'curated ' if pick.curated else ''}{'digit' if pick.digit is None else f'{pick.digit}'}s"
    if pick.start is not None:
        return invalid(at_pointer("/start", f"version {index.version} has no {kind} from this seed on in its index"))
    return invalid(at_pointer("/count", f"{len(pick)} images; version {index.version} has {found} {kind} in its index"))


def _replaced() -> ProblemError:
    return ProblemError(problems.MODEL_NOT_SERVED, f"{GENERATOR} was replaced {_ATTEMPTS} times meanwhile")
