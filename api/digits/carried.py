"""What a version of the generator carries with it, such as its seed index: fetched once from the model server."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np

from api.http.current_request import CurrentRequest, current, time_limit
from api.upstream.inference import Inference
from serving.contract import GENERATOR, STORY, STORY_BYTES
from serving.tf_serving.client import Array, ContractError, NoSignatureError, Prediction

NEWEST_S: Final = 1.0
"""Seconds for which the number of the newest version is cached."""

PAGES_PER_CALL: Final = 16
"""One call returns the index of 65,536 seeds. Pages beyond the end are cut off."""

MAX_STORY_BYTES: Final = 2**24

_VERSIONS_KEPT: Final = 4

_T = TypeVar("_T")


@dataclass(eq=False)
class Carried(Generic[_T]):
    """What the versions in use carry under a signature that gives it page by page.

    Args:
        timeout_s: for a fetch.
        signature: the signature's name.
        length: the output that says how many entries there are in all. The pages of the others hold them.
        lengths: the lengths that keep the contract.
        read: makes the result from the version and the entries by output. Raises ValueError for wrong entries.
    """

    inference: Inference
    timeout_s: float
    signature: str
    length: str
    lengths: range
    read: Callable[[int, Mapping[str, Array]], _T]
    _fetches: dict[int, asyncio.Task[_T | None]] = field(default_factory=dict, init=False)
    _newest: int | None = field(default=None, init=False)
    _newest_until: float = field(default=0.0, init=False)

    async def of(self, version: int | None) -> _T | None:
        """Returns what ``version`` carries; None if it carries nothing. Requests for one version share one fetch.

        ``version`` None means the version that was the newest at most NEWEST_S ago.

        Raises ModelServerError; VersionNotFoundError if there is no such version any more.
        """
        if version is None:
            if self._newest is None or time.monotonic() >= self._newest_until:
                try:
                    self._newest = (await self._call(range(1), None)).version
                except NoSignatureError:
                    return None
                self._newest_until = time.monotonic() + NEWEST_S
            version = self._newest
        if version not in self._fetches:
            self._fetches[version] = asyncio.create_task(self._fetch(version))
            self._fetches[version].add_done_callback(lambda task: self._keep_success(version, task))
        try:
            # Shielded: a request that ends early does not end the fetch of the others.
            return await asyncio.shield(self._fetches[version])
        except asyncio.CancelledError:
            current.get().waited_for = "model"
            raise

    def forget_newest(self) -> None:
        """Makes the next request ask the model server for its newest version."""
        self._newest = None

    def _keep_success(self, version: int, task: "asyncio.Task[_T | None]") -> None:
        if task.cancelled() or task.exception():  # the requests that wait get the error, and the next one tries again
            self._fetches.pop(version, None)
        while len(self._fetches) > _VERSIONS_KEPT:
            del self._fetches[next(iter(self._fetches))]

    async def _fetch(self, version: int) -> _T | None:
        current.set(CurrentRequest())  # and not the one that began the fetch
        async with time_limit(self.timeout_s):
            try:
                answers = [await self._call(range(PAGES_PER_CALL), version)]
            except NoSignatureError:
                return None
            outputs = answers[0].outputs
            length = int(outputs[self.length][0])
            if length not in self.lengths:
                raise self._broken(f"{length} entries")
            entries_per_call = max(output.size for output in outputs.values())
            later_calls = range(PAGES_PER_CALL, -(-length // entries_per_call) * PAGES_PER_CALL, PAGES_PER_CALL)
            answers += [await self._call(range(page, page + PAGES_PER_CALL), version) for page in later_calls]
        entries = {
            name: np.concatenate([answer.outputs[name].ravel() for answer in answers])[:length] for name in outputs
        }
        try:
            return self.read(version, entries)
        except ValueError as error:
            raise self._broken(str(error)) from error

    async def _call(self, pages: range, version: int | None) -> Prediction:
        rows = np.array(pages, np.int64)
        return await self.inference.predict(GENERATOR, rows, signature=self.signature, version=version)

    def _broken(self, what: str) -> ContractError:
        error = ContractError(GENERATOR, "BAD_ANSWER", f"{self.signature}: {what}")
        self.inference.metrics.upstream_errors.labels(error.model, error.code).inc()
        return error


@dataclass(frozen=True)
class Story:
    """How a version of the generator learned: a JSON document."""

    version: int
    content: bytes


def stories(inference: Inference, timeout_s: float) -> Carried[Story]:
    """Returns the training stories of the versions in use. ``timeout_s``: for a fetch."""

    def read(version: int, entries: Mapping[str, Array]) -> Story:
        return Story(version, entries[STORY].tobytes())

    return Carried(inference, timeout_s, STORY, STORY_BYTES, range(1, MAX_STORY_BYTES + 1), read)
