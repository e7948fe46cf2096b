"""Digits on their way from the gateway into a file, which a stop at any moment leaves fit to go on from.

The file holds records (``serving.dataset.record``) in the order of the seeds. What is still to come follows from those
that are there, so nothing else has to be kept: half a record at the end is cut off, and the walk goes on after the last
seed.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from digitgan.client import BrokenStreamError, Client, LabelledDigits
from digitgan.dataset.plan import Plan
from digitgan.errors import UserError
from serving.contract import CLASSES
from serving.dataset import Records, record

_PER_REQUEST: Final = 8192
_ATTEMPTS: Final = 5
"""In a row that bring nothing."""
_PAUSE_S: Final = 1.0

Versions = dict[str, int]


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

    def complete(self, client: Client, versions: Versions | None, began: Callable[[Versions], None]) -> Iterator[int]:
        """Collects the rest, and yields how many digits came, again and again.

        If the answer breaks off, the missing digits are requested again.

        Args:
            client: the gateway.
            versions: of the models that made what is there; None if nothing is.
            began: gets the versions when the first digits come, before they are kept.

        Raises:
            UserError: the gateway has other versions of the models by now.
            digitgan.client.DigitganError: it doesn't answer, again and again, or refuses.
        """
        failures = 0
        with self._path.open("ab", buffering=0) as file:
            while self.count < self._plan.count:
                before = self.count
                try:
                    with closing(self._request(client, versions)) as parts:
                        for part in parts:
                            if versions is None:
                                versions = part.versions
                                began(versions)
                            _check_same(versions, part.versions)
                            file.write(_packed(part).tobytes())
                            self._counts += np.bincount(part.labels, minlength=CLASSES)
                            self._next_seed = int(part.seeds[-1]) + 1
                            yield len(part)
                except BrokenStreamError:  # the client itself repeats what fails before a stream begins
                    failures = 0 if self.count > before else failures + 1
                    if failures == _ATTEMPTS:
                        raise
                    time.sleep(_PAUSE_S)

    def _request(self, client: Client, versions: Versions | None) -> Generator[LabelledDigits, None, None]:
        plan = self._plan
        quotas = plan.quotas
        return client.dataset(
            min(_PER_REQUEST, plan.count - self.count),
            balance="natural" if quotas is None else None,
            quotas=None if quotas is None else (np.array(quotas) - self._counts).tolist(),
            confidence_floor=plan.confidence_floor,
            logit_floor=plan.logit_floor,
            first_seed=self._next_seed,
            version=versions["generator"] if versions else plan.generator,
        )


def _packed(part: LabelledDigits) -> Records:
    records = np.empty(len(part), record())
    records["seed"], records["digit"], records["pixels"] = part.seeds, part.labels, part.pixels
    records["confidence"], records["logit"] = part.confidences, part.logits
    return records


def _check_same(ours: Versions, theirs: Versions) -> None:
    changed = [f"{model} {ours[model]} (now {theirs[model]})" for model in ours if ours[model] != theirs[model]]
    if changed:
        raise UserError(
            f"the gateway has other models than those that this dataset began with: {', '.join(changed)}. Serve those "
            "again, or delete the partial folder and begin anew"
        )
