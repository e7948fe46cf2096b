"""Probabilities from a detector's logits, and how well probabilities are calibrated."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from training.evaluation.statistics import Floats

BINS: Final = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Calibration:
    """The probability that an image is real, from its logit: sigmoid(slope · logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """float64 [N], from float [N]."""
        return np.asarray(expit(self.slope * np.asarray(logits, np.float64) + self.offset))


def fit(real_logits: Floats, fake_logits: Floats) -> Calibration:
    """Platt scaling (Platt 1999; Guo et al. 2017, section 4.1), for a mix of real and fake in equal parts.

    Platt's targets are a little off 0 and 1, (N + 1)/(N + 2) and 1/(N + 2), so that logits that separate the two
    perfectly still have a finite slope. The slope is never negative: logits that say nothing, or the opposite, get 0.
    """
    n, m = len(real_logits), len(fake_logits)
    logits = np.concatenate([real_logits, fake_logits]).astype(np.float64)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    weights = np.repeat([0.5 / n, 0.5 / m], [n, m]) * (n + m)
    # A soft target t is t parts of a real image and 1 - t parts of a fake one. The scale is for the optimiser's sake.
    scale = logits.std() or 1.0
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    regression.fit(
        np.tile(logits / scale, 2)[:, None],
        np.repeat([1, 0], n + m),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    slope = float(regression.coef_[0, 0] / scale)
    return Calibration(slope, float(regression.intercept_[0])) if slope > 0 else Calibration(0.0, 0.0)


def reliability(probabilities: Floats, labels: NDArray[Any], weights: Floats | None = None) -> list[dict[str, Any]]:
    """Computes the points of a reliability diagram: how often an event with about the same probability is true.

    The labels are 1 or True where the event is true. The sum of the weights is 1; by default, they are equal. For each
    bin that isn't empty: the mean ``probability``, ``share_true``, ``share`` (of the whole weight) and ``images``.
    """
    weights = np.full(len(probabilities), 1 / len(probabilities)) if weights is None else weights
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "probability": float(np.average(probabilities[within], weights=weights[within])),
            "share_true": float(np.average(labels[within], weights=weights[within])),
            "share": float(weights[within].sum()),
            "images": int(within.sum()),
        }
        for within in (bins == place for place in np.unique(bins))
    ]


def calibration_error(points: list[dict[str, Any]]) -> float:
    """The expected calibration error (Naeini et al. 2015): the mean gap between probability and share that is true."""
    return float(sum(point["share"] * abs(point["probability"] - point["share_true"]) for point in points))
