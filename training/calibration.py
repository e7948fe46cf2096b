"""From a detector's logits to probabilities that can be believed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Calibration:
    """The probability that an image is real, from its logit: sigmoid(slope · logit + offset).

    Attributes:
        slope: at least 0, so that a higher logit never means a lower probability.
        offset: in nats.
    """

    slope: float = 1.0
    offset: float = 0.0

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """float64 [N], from float [N]."""
        return np.asarray(expit(self.slope * np.asarray(logits, np.float64) + self.offset))


def fit(real_logits: Floats, fake_logits: Floats) -> Calibration:
    """Platt scaling (Platt 1999; Guo et al. 2017, section 4.1), for a mix of real and fake in equal parts.

    Platt's targets stand a little off 0 and 1, (N + 1)/(N + 2) and 1/(N + 2), so that logits that part the two
    perfectly still have a finite slope. Logits that say nothing, or the opposite, get the slope 0.

    Args:
        real_logits: [N], of real images that the detector wasn't trained on.
        fake_logits: [M], of fresh fakes.
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
