"""The seed index: which digit each of the first seeds of a generator version gives.

The index was computed when the version was exported, and the model server returns it (signature ``seed_index`` of
``serving.contract``). A request for sevens chooses among the seeds of sevens here, and costs no more than any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.digits.carried import Carried
from api.http.problems import at_pointer, invalid
from api.http.schemas import GenerateRequest
from api.upstream.inference import Inference
from serving.contract import CLASSES, CONFIDENCES, CURATED, DIGITS, INDEXED_SEEDS, NOT_INDEXED, SEED_INDEX
from serving.tf_serving.client import Array

MAX_SEEDS: Final = 2**20
"""The longest index that is accepted: 6 MB."""

MIN_CONFIDENCE: Final = 0.9
"""Below this confidence an image does not count as any digit."""


@dataclass(frozen=True, eq=False)
class SeedIndex:
    """The index of one version: entry s describes the image of seed s.

    Attributes:
        digits: uint8 [S], 0 to 9, or NOT_INDEXED where nothing is known.
        confidences: float32 [S], the classifier's probability of that digit.
        curated: bool [S], whether the image passes the floors of confidence and logit.
    """

    version: int
    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    curated: NDArray[np.bool_]
    _found: dict[tuple[int | None, bool], NDArray[np.uint32]] = field(default_factory=dict, init=False, repr=False)

    def choose(self, request: GenerateRequest) -> list[int]:
        """Returns seeds of the kind that ``request`` names by ``digit`` and ``curated``, none of them twice.

        With ``start`` they are the next ones in ascending order, up to ``count``; without, ``count`` at random.

        Raises ProblemError (422) if the index has too few.
        """
        fitting = self._seeds(request.digit, request.curated)
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

    def _seeds(self, digit: int | None, curated: bool) -> NDArray[np.uint32]:
        """Returns in ascending order the seeds of images of ``digit`` (None: of any), all or only curated ones."""
        key = digit, curated
        if key not in self._found:
            fitting = self.digits != NOT_INDEXED if digit is None else self.digits == digit
            fitting &= self.confidences >= MIN_CONFIDENCE
            self._found[key] = np.flatnonzero(fitting & self.curated if curated else fitting).astype(np.uint32)
        return self._found[key]


def seed_indexes(inference: Inference, timeout_s: float) -> Carried[SeedIndex]:
    """Returns the indexes of the versions in use. ``timeout_s``: for a fetch."""

    def read(version: int, entries: Mapping[str, Array]) -> SeedIndex:
        digits = entries[DIGITS]
        if ((digits >= CLASSES) & (digits != NOT_INDEXED)).any():
            raise ValueError(f"the digit {digits[digits != NOT_INDEXED].max()}")
        return SeedIndex(version, digits, entries[CONFIDENCES], entries[CURATED] != 0)

    return Carried(inference, timeout_s, SEED_INDEX, INDEXED_SEEDS, range(MAX_SEEDS + 1), read)
