"""Scans the seeds in ascending order and keeps the digits that a dataset wants.

The versions of the models and the spec alone decide which digits are kept. Seeds are scanned in blocks with the same
bounds wherever the scan begins, so a scan that continues at a seed gives what an uninterrupted one gives from there on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.http.problems import ProblemError, at_pointer, invalid
from api.http.schemas import DatasetRequest
from api.upstream.inference import SLICE_ROWS, Inference, in_order
from serving.contract import CLASSES, CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, MAX_SEED, PROBABILITIES
from serving.dataset import Records, quotas, record
from serving.tf_serving.client import Array

MOST_AHEAD: Final = 5  # blocks that are computed while one is sent
MAX_SCANNED_WITHOUT_MATCH: Final = 2**14  # seeds in a row: the scan then gives up, before clients and proxies do


class SeedScan:
    """The scan for one dataset: the first digits from ``first_seed`` on that pass, of each class at most its quota.

    The same ``versions`` of the models make all digits. They are known after the first part.
    """

    def __init__(self, body: DatasetRequest, inference: Inference) -> None:
        self.versions: dict[str, int] = {} if body.version is None else {GENERATOR: body.version}
        self._body = body
        self._inference = inference
        self._left = body.count
        of_each = body.quotas or quotas(body.count, body.balance) or [body.count] * CLASSES
        self._quotas = np.array([min(most, body.count) for most in of_each])  # a client may send more than an int64

    async def parts(self, on_scanned: Callable[[int], None]) -> AsyncGenerator[Records]:
        """Yields the digits that each block keeps, maybe none, and calls ``on_scanned`` with the block's size before.

        Raises ModelServerError; ProblemError (422) after MAX_SCANNED_WITHOUT_MATCH seeds that bring nothing.
        """
        without_match = 0
        numbers = iter(range(self._body.first_seed // SLICE_ROWS, (MAX_SEED + 1) // SLICE_ROWS))
        ahead = min(max(1, self._body.count // SLICE_ROWS), MOST_AHEAD)
        first = await self._block(next(numbers))  # it finds out the versions that the others name
        async with aclosing(in_order(first, map(self._block, numbers), ahead)) as blocks:
            async for block in blocks:
                on_scanned(SLICE_ROWS)
                kept = block[self._choose(block)]
                without_match = 0 if len(kept) else without_match + SLICE_ROWS
                yield kept
                if not self._left:
                    return
                if without_match >= MAX_SCANNED_WITHOUT_MATCH:
                    logit = "" if self._body.logit_floor is None else f" and a logit of {self._body.logit_floor:g}"
                    passing = f"a digit that is left, with a confidence of {self._body.confidence_floor:g}{logit}"
                    raise self._unmet(f"none of {without_match} seeds in a row gives {passing}")
        raise self._unmet(f"the last seed, {MAX_SEED}, is reached before there are {self._body.count} digits")

    def _unmet(self, detail: str) -> ProblemError:
        fields = ["confidence_floor"] + ["logit_floor"] * (self._body.logit_floor is not None)
        return invalid(*(at_pointer(f"/{field}", detail) for field in fields))

    def _choose(self, block: Records) -> NDArray[np.int64]:
        """Returns the places of the digits that pass and that the quotas have room for, and takes them off."""
        digits, passing = block["digit"], block["confidence"] >= np.float32(self._body.confidence_floor)
        if self._body.logit_floor is not None:
            passing &= block["logit"] >= self._body.logit_floor
        chosen = np.zeros(len(block), np.bool_)
        for digit in range(CLASSES):
            chosen[np.flatnonzero(passing & (digits == digit))[: self._quotas[digit]]] = True
        places = np.flatnonzero(chosen)[: self._left]
        self._quotas -= np.bincount(digits[places], minlength=CLASSES)
        self._left -= len(places)
        return places

    async def _block(self, number: int) -> Records:
        # Always the whole block: a pixel may depend on the batch that it is computed in.
        seeds = range(number * SLICE_ROWS, (number + 1) * SLICE_ROWS)
        images = await self._predict(GENERATOR, IMAGES, seeds)
        probabilities, logits = await asyncio.gather(
            self._predict(CLASSIFIER, PROBABILITIES, images), self._predict(DISCRIMINATOR, LOGITS, images)
        )
        found = np.empty(len(images), record())
        found["seed"], found["pixels"], found["logit"] = np.arange(seeds.start, seeds.stop), images[..., 0], logits
        found["digit"], found["confidence"] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        return found[found["seed"] >= np.uint64(self._body.first_seed)]

    async def _predict(self, model: str, output: str, rows: Array | range) -> Array:
        prediction = await self._inference.predict(model, rows, version=self.versions.get(model))
        self.versions[model] = prediction.version
        return prediction.outputs[output]
