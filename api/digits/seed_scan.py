"""Scans the seeds in ascending order and keeps the digits that a dataset wants.

The versions of the models and the spec alone decide which digits are kept. Seeds are scanned in blocks with the same
bounds wherever the scan begins, so a scan that continues at a seed gives what an uninterrupted one gives from there on.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.http.problems import ProblemError, at_pointer, invalid
from api.http.schemas import DatasetRequest
from api.telemetry.metrics import Metrics
from api.upstream.inference import MAX_BATCH, Inference
from serving.contract import CLASSES, CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, MAX_SEED, PROBABILITIES
from serving.dataset import Records, quotas, record
from serving.tf_serving.client import Array

MAX_SCANNED_WITHOUT_MATCH: Final = 2**16
"""After so many seeds in a row without a digit to keep, the scan gives up."""

_BLOCKS_AHEAD: Final = 2
"""Blocks on their way while the caller works on one."""


class SeedScan:
    """The scan for one dataset: the first digits from ``first_seed`` on that pass, of each class at most its quota.

    Attributes:
        versions: the versions of the models, which are the same for all digits; known after the first part.
    """

    def __init__(self, body: DatasetRequest, inference: Inference, metrics: Metrics) -> None:
        self.versions: dict[str, int] = {} if body.version is None else {GENERATOR: body.version}
        self._first_seed = body.first_seed
        self._confidence_floor = body.confidence_floor
        self._logit_floor = body.logit_floor
        self._inference = inference
        self._metrics = metrics
        self._count = self._left = body.count
        of_each = body.quotas or quotas(body.count, body.balance) or [body.count] * CLASSES
        self._quotas = np.minimum(of_each, body.count)

    async def parts(self, on_scanned: Callable[[int], None]) -> AsyncGenerator[Records]:
        """Yields the digits in the order of their seeds: for each block those that it keeps, which may be none.

        ``on_scanned`` is called with the number of images of each block.

        Raises ModelServerError; ProblemError (422) after MAX_SCANNED_WITHOUT_MATCH seeds that bring nothing.
        """
        without_match = 0
        async with aclosing(self._blocks()) as blocks:
            async for block in blocks:
                on_scanned(MAX_BATCH)
                kept = block[self._choose(block)]
                without_match = 0 if len(kept) else without_match + MAX_BATCH
                yield kept
                if not self._left:
                    return
                if without_match >= MAX_SCANNED_WITHOUT_MATCH:
                    logit = "" if self._logit_floor is None else f" and a logit of {self._logit_floor:g}"
                    passing = f"a digit that is left, with a confidence of {self._confidence_floor:g}{logit}"
                    raise self._unmet(f"none of {without_match} seeds in a row gives {passing}")
        raise self._unmet(f"the last seed, {MAX_SEED}, is reached before there are {self._count} digits")

    def _unmet(self, detail: str) -> ProblemError:
        """Returns the problem of a scan that finds too few digits. ``detail`` says where it ended."""
        fields = ["confidence_floor"] + ["logit_floor"] * (self._logit_floor is not None)
        return invalid(*(at_pointer(f"/{field}", detail) for field in fields))

    async def _blocks(self) -> AsyncGenerator[Records]:
        """Yields the digits of every block of seeds from the first seed on, the next blocks on their way."""
        numbers = iter(range(self._first_seed // MAX_BATCH, (MAX_SEED + 1) // MAX_BATCH))
        yield await self._block(next(numbers))  # it finds out the versions that the others name
        async with aclosing(_in_order(self._block(number) for number in numbers)) as blocks:
            async for block in blocks:
                yield block

    def _choose(self, block: Records) -> NDArray[np.int64]:
        """Returns the places of the digits that pass and that the quotas have room for, and takes them off."""
        digits, passing = block["digit"], block["confidence"] >= np.float32(self._confidence_floor)
        if self._logit_floor is not None:
            passing &= block["logit"] >= self._logit_floor
        chosen = np.zeros(len(block), np.bool_)
        for digit in range(CLASSES):
            chosen[np.flatnonzero(passing & (digits == digit))[: self._quotas[digit]]] = True
        places = np.flatnonzero(chosen)[: self._left]
        self._quotas -= np.bincount(digits[places], minlength=CLASSES)
        self._left -= len(places)
        return places

    async def _block(self, number: int) -> Records:
        """Returns the digits of a block of seeds, without those before the first seed."""
        # Always the whole block: a pixel may depend on the batch that it is computed in.
        seeds = range(number * MAX_BATCH, (number + 1) * MAX_BATCH)
        images = await self._predict(GENERATOR, IMAGES, seeds)
        self._metrics.images.labels(str(self.versions[GENERATOR])).inc(len(images))
        probabilities, logits = await asyncio.gather(
            self._predict(CLASSIFIER, PROBABILITIES, images), self._predict(DISCRIMINATOR, LOGITS, images)
        )
        self._metrics.labels.labels("classifier").inc(len(images))
        found = np.empty(len(images), record())
        found["seed"], found["pixels"], found["logit"] = np.arange(seeds.start, seeds.stop), images[..., 0], logits
        found["digit"], found["confidence"] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        return found[found["seed"] >= np.uint64(self._first_seed)]

    async def _predict(self, model: str, output: str, rows: Array | range) -> Array:
        version = self.versions.get(model)
        prediction = await self._inference.predict(model, rows, version=version)
        self.versions[model] = prediction.version
        return prediction.outputs[output]


async def _in_order(blocks: Iterator[Coroutine[None, None, Records]]) -> AsyncGenerator[Records]:
    """Yields what each of ``blocks`` returns, in order, with _BLOCKS_AHEAD on their way while the caller works."""
    on_their_way: deque[asyncio.Task[Records]] = deque()
    try:
        for block in blocks:
            on_their_way.append(asyncio.create_task(block))
            if len(on_their_way) > _BLOCKS_AHEAD:
                yield await on_their_way.popleft()
        while on_their_way:
            yield await on_their_way.popleft()
    finally:
        for task in on_their_way:
            task.cancel()
        await asyncio.gather(*on_their_way, return_exceptions=True)
