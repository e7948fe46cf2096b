"""The seed index: which digit each of the first seeds of a generator version gives.

The index was computed when the version was exported, and the model server returns it (signature ``seed_index`` of
``serving.contract``). A request for sevens chooses among the seeds of sevens here, and costs no more than any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from api.digits.carried import Carried
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.contract import (
    CLASSES,
    CONFIDENCES,
    CURATED,
    DIGITS,
    INDEXED_SEEDS,
    LOGITS,
    NOT_INDEXED,
    SEED_INDEX,
)
from serving.tf_serving.client import Array

MAX_SEEDS: Final = 2**20
"""The longest index that is accepted: 6 MB."""

MIN_CONFIDENCE: Final = 0.9
"""Below this confidence an image does not count as any digit."""

Seeds = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class SeedIndex:
    """The index of one version: entry s describes the image of seed s.

    Attributes:
        digits: uint8 [S], 0 to 9, or NOT_INDEXED where nothing is known.
        confidences: float32 [S], the classifier's probability of that digit.
        logits: float32 [S], the discriminator's.
        curated: bool [S], whether the image passes the floors of confidence and logit.
    """

    version: int
    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    logits: NDArray[np.float32]
    curated: NDArray[np.bool_]
    _found: dict[tuple[int | None, bool], Seeds] = field(default_factory=dict, init=False, repr=False)

    def seeds(self, digit: int | None, curated: bool) -> Seeds:
        """Returns in ascending order the seeds of images of ``digit`` (None: of any), all or only curated ones."""
        key = digit, curated
        if key not in self._found:
            fitting = self.digits != NOT_INDEXED if digit is None else self.digits == digit
            fitting &= self.confidences >= MIN_CONFIDENCE
            self._found[key] = np.flatnonzero(fitting & self.curated if curated else fitting).astype(np.uint32)
        return self._found[key]

    def places(self, seeds: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which of ``seeds`` are in the index, bool [N], and their places in it."""
        places = np.array(seeds, np.int64)
        known = places < len(self.digits)
        known[known] = self.digits[places[known]] != NOT_INDEXED
        return known, places[known]


def seed_indexes(inference: Inference, metrics: Metrics, timeout_s: float) -> Carried[SeedIndex]:
    """Returns the indexes of the versions in use. ``timeout_s``: for each call of a fetch."""

    def read(version: int, entries: Mapping[str, Array]) -> SeedIndex:
        digits = entries[DIGITS]
        if ((digits >= CLASSES) & (digits != NOT_INDEXED)).any():
            raise ValueError(f"the digit {digits[digits != NOT_INDEXED].max()}")
        metrics.index_fetches.labels(str(version)).inc()
        return SeedIndex(version, digits, entries[CONFIDENCES], entries[LOGITS], entries[CURATED] != 0)

    return Carried(inference, metrics, timeout_s, SEED_INDEX, INDEXED_SEEDS, MAX_SEEDS, read)
