"""What a version of the generator carries with it, fetched once from the model server: its seed index, its story."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from api.http.problems import at_pointer, invalid
from api.http.schemas import GenerateRequest
from api.upstream.inference import Inference
from serving import contract
from serving.contract import CLASSES, GENERATOR, NOT_INDEXED, SEED_INDEX, STORY
from serving.tf_serving.client import Array, ContractError, NoSignatureError, Prediction

PAGES_PER_CALL: Final = 16  # the index of 65,536 seeds; pages beyond the end are cut off
MAX_SEEDS: Final = 2**20  # in an index: 6 MB

_T = TypeVar("_T")


@dataclass(eq=False)
class Carried(Generic[_T]):
    """What the versions in use carry under a signature that gives it page by page.

    ``length`` is the output with the number of entries, which ``lengths`` bounds. ``read`` makes the result from the
    version and the entries by output, and raises ValueError for wrong entries.
    """

    inference: Inference
    signature: str
    length: str
    lengths: range
    read: Callable[[int, Mapping[str, Array]], _T]
    _found: dict[int, _T | None] = field(default_factory=dict, init=False)
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _newest: int = field(default=0, init=False)
    _newest_until: float = field(default=0.0, init=False)

    async def of(self, version: int | None) -> _T | None:
        """Returns what ``version`` carries, or the version that was the newest a second ago at most; None for nothing.

        Requests for one version share one fetch. Raises ModelServerError: VersionNotFoundError for a withdrawn version.
        """
        if version is None:
            if time.monotonic() >= self._newest_until:
                try:
                    self._newest = (await self._call(range(1), None)).version
                except NoSignatureError:
                    return None
                self._newest_until = time.monotonic() + 1
            version = self._newest
        if version not in self._found:
            async with self._fetching:
                if version not in self._found:
                    self._found[version] = await self._fetch(version)
                    while len(self._found) > 4:  # more versions than are served at a time
                        del self._found[next(iter(self._found))]
        return self._found[version]

    def forget_newest(self) -> None:
        """Makes the next request ask the model server for its newest version."""
        self._newest_until = 0.0

    async def _fetch(self, version: int) -> _T | None:
        try:
            answers = [await self._call(range(PAGES_PER_CALL), version)]
        except NoSignatureError:
            return None
        outputs = answers[0].outputs
        length = int(outputs[self.length][0])
        try:
            if length not in self.lengths:
                raise ValueError(f"{length} entries")
            entries_per_call = max(output.size for output in outputs.values())
            later = range(PAGES_PER_CALL, -(-length // entries_per_call) * PAGES_PER_CALL, PAGES_PER_CALL)
            answers += [await self._call(range(page, page + PAGES_PER_CALL), version) for page in later]
            parts = {name: [answer.outputs[name].ravel() for answer in answers] for name in outputs}
            return self.read(version, {name: np.concatenate(part)[:length] for name, part in parts.items()})
        except ValueError as error:
            broken = ContractError(GENERATOR, "BAD_ANSWER", f"{self.signature}: {error}")
            self.inference.metrics.upstream_errors.labels(broken.model, broken.code).inc()
            raise broken from error

    async def _call(self, pages: range, version: int | None) -> Prediction:
        rows = np.array(pages, np.int64)
        return await self.inference.predict(GENERATOR, rows, signature=self.signature, version=version)


@dataclass(frozen=True, eq=False)
class SeedIndex:
    """The index of one version: entry s describes the image of seed s, with the classifier's probability of the digit.

    A digit may be NOT_INDEXED. Images that pass the floors of confidence and logit are curated.
    """

    version: int
    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    curated: NDArray[np.bool_]

    @classmethod
    def read(cls, version: int, entries: Mapping[str, Array]) -> Self:
        """Returns the index with these entries. Raises ValueError for a wrong digit."""
        digits = entries[contract.DIGITS]
        if ((digits >= CLASSES) & (digits != NOT_INDEXED)).any():
            raise ValueError("a digit above 9")
        return cls(version, digits, entries[contract.CONFIDENCES], entries[contract.CURATED] != 0)

    def choose(self, request: GenerateRequest) -> list[int]:
        """Returns seeds for ``request``: the next from ``start`` on, or random ones. Raises ProblemError (422)."""
        fits = self.digits != NOT_INDEXED if request.digit is None else self.digits == request.digit
        fits &= self.confidences >= 0.9  # a doubtful image does not count as any digit
        fitting = np.flatnonzero(fits & self.curated if request.curated else fits)
        kind = f"{'curated ' if request.curated else ''}{'digit' if request.digit is None else request.digit}s"
        if request.start is not None:
            following: list[int] = fitting[fitting >= request.start][: request.count].tolist()
            if following:
                return following
            detail = f"version {self.version} has no {kind} from this seed on in its index"
            raise invalid(at_pointer("/start", detail))
        if request.count > len(fitting):
            detail = f"{request.count} images; version {self.version} has {len(fitting)} {kind} in its index"
            raise invalid(at_pointer("/count", detail))
        chosen: list[int] = np.random.default_rng().choice(fitting, request.count, replace=False).tolist()
        return chosen


class Story(NamedTuple):
    """How a version of the generator learned: a JSON document."""

    version: int
    content: bytes


def seed_indexes(inference: Inference) -> Carried[SeedIndex]:
    """Returns the indexes of the versions in use."""
    return Carried(inference, SEED_INDEX, contract.INDEXED_SEEDS, range(MAX_SEEDS + 1), SeedIndex.read)


def stories(inference: Inference) -> Carried[Story]:
    """Returns the training stories of the versions in use."""

    def read(version: int, entries: Mapping[str, Array]) -> Story:
        return Story(version, entries[STORY].tobytes())

    return Carried(inference, STORY, contract.STORY_BYTES, range(1, 2**24 + 1), read)
