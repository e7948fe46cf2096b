"""Which digit an image shows, and how sure that is: from the seed index, or else from the classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.inference import Inference
from api.metrics import Metrics
from api.seed_index import SeedIndex
from serving.client import Array
from serving.contract import CLASSIFIER, PROBABILITIES

_DECIMALS = 6
"""Of a confidence in an answer; float32 knows seven digits."""


@dataclass(frozen=True)
class Labels:
    """``digits``: uint8 [N], 0 to 9. ``confidences``: float32 [N], the classifier's probability of that digit."""

    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence["Labels"]) -> "Labels":
        """Returns the labels of all ``parts`` (at least one), in order."""
        return cls(np.concatenate([one.digits for one in parts]), np.concatenate([one.confidences for one in parts]))

    def pairs(self) -> list[tuple[int, float]]:
        """Returns digit and confidence of each image, as an answer tells them."""
        confidences = np.round(self.confidences.astype(np.float64), _DECIMALS)
        return list(zip(self.digits.tolist(), confidences.tolist(), strict=True))


async def label(
    images: Array,
    seeds: Sequence[int] | None,
    index: SeedIndex | None,
    inference: Inference,
    metrics: Metrics,
    timeout_s: float,
) -> Labels:
    """Returns the labels of ``images``, uint8 [N, 28, 28, 1] with N ≤ MAX_BATCH.

    Those whose seeds are in ``index``, which is that of the version that made them, cost nothing; the classifier is
    asked for the others in one call. Raises ModelServerError.
    """
    count = len(images)
    digits, confidences = np.zeros(count, np.uint8), np.zeros(count, np.float32)
    known = np.zeros(count, np.bool_)
    if index is not None and seeds is not None:
        known, places = index.places(seeds)
        digits[known], confidences[known] = index.digits[places], index.confidences[places]
    unknown = np.flatnonzero(~known)
    if len(unknown):
        prediction = await inference.predict(CLASSIFIER, images[unknown], version=None, timeout_s=timeout_s)
        probabilities = prediction.outputs[PROBABILITIES]
        digits[unknown], confidences[unknown] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    metrics.labels.labels("index").inc(count - len(unknown))
    metrics.labels.labels("classifier").inc(len(unknown))
    return Labels(digits, confidences)
