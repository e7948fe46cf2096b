"""Labels of images: the digit that each shows, and the confidence of that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.digits.seed_index import SeedIndex
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.contract import CLASSIFIER, PROBABILITIES
from serving.tf_serving.client import Array

_DECIMALS = 6
"""Of a confidence in an answer; float32 has seven digits."""


@dataclass(frozen=True)
class Labels:
    """``digits``: uint8 [N], 0 to 9. ``confidences``: float32 [N], the classifier's probability of that digit."""

    digits: NDArray[np.uint8]
    confidences: NDArray[np.float32]

    def pairs(self) -> list[tuple[int, float]]:
        """Returns the digit and the rounded confidence of each image."""
        confidences = np.round(self.confidences.astype(np.float64), _DECIMALS)
        return list(zip(self.digits.tolist(), confidences.tolist(), strict=True))


async def label(
    images: Array,
    seeds: Sequence[int] | None,
    index: SeedIndex | None,
    inference: Inference,
    metrics: Metrics,
) -> Labels:
    """Returns the labels of ``images``, uint8 [N, 28, 28, 1], of ``seeds``.

    The labels of seeds in ``index`` (of the version that made the images) come from there; the classifier labels the
    others. Raises ModelServerError.
    """
    count = len(images)
    digits, confidences = np.zeros(count, np.uint8), np.zeros(count, np.float32)
    known = np.zeros(count, np.bool_)
    if index is not None and seeds is not None:
        known, places = index.places(seeds)
        digits[known], confidences[known] = index.digits[places], index.confidences[places]
    unknown = np.flatnonzero(~known)
    if len(unknown):
        answer = await inference.predict_whole(CLASSIFIER, images[unknown], version=None)
        probabilities = answer.outputs[PROBABILITIES]
        digits[unknown], confidences[unknown] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    metrics.labels.labels("index").inc(count - len(unknown))
    metrics.labels.labels("classifier").inc(len(unknown))
    return Labels(digits, confidences)
