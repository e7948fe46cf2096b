"""The digits of a dataset in a file, which a stop at any moment leaves fit to go on from.

The file holds records (``serving.dataset.record``) in the order of the seeds. What is still to come follows from those
that are there: half a record at the end is cut off, and the next request begins after the last seed.
"""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from digitgan.client import BrokenStreamError, Client, LabelledDigits
from digitgan.dataset.plan import Plan
from serving.contract import CLASSES
from serving.dataset import Records, record
from serving.errors import UserError

_PER_REQUEST: Final = 8192
_ATTEMPTS: Final = 5
"""In a row that bring nothing."""
_PAUSE_S: Final = 1.0


class Collection:
    """The digits of ``plan`` collected so far, in the file ``path``."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan
        path.touch()
        os.truncate(path, path.stat().st_size // record().itemsize * record().itemsize)
        records = self.records()
        seeds = records["seed"].astype(np.int64)
        if (np.diff(seeds, prepend=plan.first_seed - 1) <= 0).any():
            raise UserError(f"{path} is damaged: its seeds don't ascend. Delete the folder and begin again")
        self._counts = np.bincount(records["digit"], minlength=CLASSES)
        self._next_seed = int(seeds[-1]) + 1 if len(seeds) else plan.first_seed

    @property
    def count(self) -> int:
        """The digits that are there."""
        return int(self._counts.sum())

    def records(self) -> Records:
        """Returns what is there, mapped from the file, in the order of the seeds."""
        return np.memmap(self._path, record(), "r") if self._path.stat().st_size else np.empty(0, record())

    def add(self, part: LabelledDigits) -> None:
        """Appends the digits to the file."""
        records = np.empty(len(part), record())
        records["seed"], records["digit"], records["pixels"] = part.seeds, part.labels, part.pixels
        records["confidence"], records["logit"] = part.confidences, part.logits
        with self._path.open("ab") as file:
            file.write(records.tobytes())
        self._counts += np.bincount(part.labels, minlength=CLASSES)
        self._next_seed = int(part.seeds[-1]) + 1

    def missing(self, client: Client, generator: int | None) -> Iterator[LabelledDigits]:
        """Yields the missing digits in parts, each of which must be added before the next one.

        If the answer breaks off, the digits that are still missing are requested again.

        Args:
            client: the gateway.
            generator: the version of the generator; None: the newest at the first request.

        Raises digitgan.client.DigitganError if the gateway doesn't answer, again and again, or refuses.
        """
        plan, quotas, failures = self._plan, self._plan.quotas, 0
        while self.count < plan.count:
            before = self.count
            parts = client.dataset(
                min(_PER_REQUEST, plan.count - before),
                balance="natural" if quotas is None else None,
                quotas=None if quotas is None else (np.array(quotas) - self._counts).tolist(),
                confidence_floor=plan.confidence_floor,
                logit_floor=plan.logit_floor,
                first_seed=self._next_seed,
                version=generator,
            )
            try:
                with closing(parts):
                    for part in parts:
                        generator = part.versions["generator"]
                        yield part
            except BrokenStreamError:  # the client itself repeats what fails before a stream begins
                failures = 0 if self.count > before else failures + 1
                if failures == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE_S)
