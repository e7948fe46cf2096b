"""How good a score is: does it separate real digits from others, and is its probability right?"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from sklearn.metrics import roc_auc_score

from training.data import Images
from training.evaluation.calibration import calibration_error, reliability
from training.evaluation.negative_examples import NEGATIVE_EXAMPLES
from training.evaluation.statistics import GROUPS, Floats, intervals, without

Score = Callable[[Images], tuple[Floats, Floats]]
"""From images, uint8 [N, 28, 28], to logits and probabilities of being real, floating point [N] each."""

KINDS: Final = ("noise", "blank", "inverted", "shuffled", "mirrored", "upside_down", "shifted")
"""The kinds of negative examples that a score is measured on. A mirrored 0, 1 or 8 may look real."""
HISTOGRAM_BINS: Final = 40


def score_figures(score: Score, real: Images, fake: Images, seed: int = 0) -> dict[str, Any]:
    """Measures a score on real and generated images that nothing was trained on, and on negative examples.

    Real and generated images count half each, whatever their numbers. ``auc`` and ``kinds`` are areas under the curve:
    the probability that a real image has a higher logit than another image (Fawcett 2006). ``accuracy`` is at a
    probability of 1/2. The outermost bins of the histograms hold the outliers. Raises ValueError if a logit or a
    probability isn't finite.
    """
    rng = np.random.default_rng(seed)
    scored = {"real": _scored(score, real), "fake": _scored(score, fake)}
    scored |= {kind: _scored(score, NEGATIVE_EXAMPLES[kind](real, rng)) for kind in KINDS}
    whole = _figures(scored)
    parts = [_figures({name: without(each, group) for name, each in scored.items()}) for group in range(GROUPS)]
    return {
        "images": {"real": len(real), "fake": len(fake)},
        **{name: figure for name, figure in whole.items() if name not in KINDS},
        "reliability": _reliability(scored),
        "kinds": {kind: whole[kind] for kind in KINDS},
        "intervals": intervals(whole, parts),
        "logits": _histogram(scored["real"][:, 0], scored["fake"][:, 0]),
    }


def _figures(scored: Mapping[str, Floats]) -> dict[str, float]:
    """Computes the figures of logits and probabilities, [N, 2] each: real, fake and each kind."""
    logits = {name: each[:, 0] for name, each in scored.items()}
    right = (scored["real"][:, 1] > 0.5).mean(), (scored["fake"][:, 1] <= 0.5).mean()
    return {
        "auc": auc(logits["real"], logits["fake"]),
        "accuracy": float(np.mean(right)),
        "expected_calibration_error": calibration_error(_reliability(scored)),
        **{kind: auc(logits["real"], logits[kind]) for kind in KINDS},
    }


def _reliability(scored: Mapping[str, Floats]) -> list[dict[str, Any]]:
    real, fake = scored["real"][:, 1], scored["fake"][:, 1]
    sizes = [len(real), len(fake)]
    weights = np.repeat([0.5 / len(real), 0.5 / len(fake)], sizes)
    return reliability(np.concatenate([real, fake]), np.repeat([1, 0], sizes), weights)


def auc(real_logits: Floats, other_logits: Floats) -> float:
    """The area under the curve: 1 where every real image has a higher logit than every other one, 1/2 by chance."""
    labels = np.repeat([1, 0], [len(real_logits), len(other_logits)])
    return float(roc_auc_score(labels, np.concatenate([real_logits, other_logits])))


def _scored(score: Score, images: Images) -> Floats:
    scored = np.stack(score(images), axis=1)
    if not np.isfinite(scored).all():
        raise ValueError("the score gives logits or probabilities that are not finite")
    return scored


def _histogram(real_logits: Floats, fake_logits: Floats) -> dict[str, list[float] | list[int]]:
    both = np.concatenate([real_logits, fake_logits]).astype(np.float64)
    low, high = np.quantile(both, [0.001, 0.999])
    edges = np.linspace(low, max(high, low + 1e-6), HISTOGRAM_BINS + 1)
    real, fake = (np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] for each in (real_logits, fake_logits))
    return {"edges": edges.tolist(), "real": real.tolist(), "fake": fake.tolist()}
