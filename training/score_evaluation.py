"""How good a score is: does it part real digits from others, and is its probability one that can be believed?"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Score = Callable[[Images], tuple[Floats, Floats]]
"""From images, uint8 [N, 28, 28], to logits and probabilities of being real, floating point [N] each."""

BINS: Final = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017."""
HISTOGRAM_BINS: Final = 40
LEAST_SHIFT: Final = 4
"""Pixels that a digit moves at least in the kind ``shifted``: MNIST's digits are centred to the pixel by their mass."""
GREATEST_SHIFT: Final = 8


def score_figures(score: Score, real: Images, fake: Images, seed: int = 0) -> dict[str, Any]:
    """What a score is worth on real and on generated images, and on other things that people send.

    Real and generated images count half each, whatever their numbers.

    Args:
        score: what is judged.
        real: uint8 [N, 28, 28], images that nothing was trained or calibrated on.
        fake: uint8 [M, 28, 28], generated images, as fresh.
        seed: decides the other things (:func:`kinds`).

    Returns:
        What JSON can hold: ``images`` ({"real": N, "fake": M}); ``auc``, the area under the receiver operating
        characteristic, which is the probability that a real image has the higher logit of the two (Fawcett 2006);
        ``accuracy`` at a probability of 1/2; ``expected_calibration_error`` and ``reliability``
        (:func:`reliability`); ``kinds``, the area for ``real`` against each kind; ``logits``, histograms as
        {"edges": …, "real": …, "fake": …}, the outermost bins holding what lies beyond.

    Raises:
        ValueError: a logit or a probability isn't finite.
    """
    real_logits, real_probabilities = _scored(score, real)
    fake_logits, fake_probabilities = _scored(score, fake)
    labels = np.repeat([1, 0], [len(real), len(fake)])
    weights = np.repeat([0.5 / len(real), 0.5 / len(fake)], [len(real), len(fake)])
    probabilities = np.concatenate([real_probabilities, fake_probabilities])
    bins = reliability(probabilities, labels, weights)
    rng = np.random.default_rng(seed)
    return {
        "images": {"real": len(real), "fake": len(fake)},
        "auc": auc(real_logits, fake_logits),
        "accuracy": float(weights[(probabilities > 0.5) == labels].sum()),
        "expected_calibration_error": calibration_error(bins),
        "reliability": bins,
        "kinds": {name: auc(real_logits, _scored(score, images)[0]) for name, images in kinds(real, rng).items()},
        "logits": _histogram(real_logits, fake_logits),
    }


def auc(real_logits: Floats, other_logits: Floats) -> float:
    """The area under the ROC curve: 1 where every real image has a higher logit than every other one, 1/2 by chance."""
    labels = np.repeat([1, 0], [len(real_logits), len(other_logits)])
    return float(roc_auc_score(labels, np.concatenate([real_logits, other_logits])))


def reliability(probabilities: Floats, labels: NDArray[np.integer[Any]], weights: Floats) -> list[dict[str, Any]]:
    """A reliability diagram's points: how often images with about the same probability are real.

    Args:
        probabilities: [N], 0 to 1.
        labels: [N], 1 for real and 0 for fake.
        weights: [N], what each image counts for; their sum is 1.

    Returns:
        For each of the equal-width bins that holds an image: ``probability`` (the mean in it), ``share_real``,
        ``share`` (of the whole weight) and ``images`` (how many).
    """
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    points = []
    for place in range(BINS):
        within = places == place
        if not within.any():
            continue
        share = float(weights[within].sum())
        points.append(
            {
                "probability": float(np.average(probabilities[within], weights=weights[within])),
                "share_real": float(np.average(labels[within], weights=weights[within])),
                "share": share,
                "images": int(within.sum()),
            }
        )
    return points


def calibration_error(points: list[dict[str, Any]]) -> float:
    """The expected calibration error of Naeini et al. 2015: the mean gap between probability and share of real ones.

    Args:
        points: as :func:`reliability` returns them.
    """
    return float(sum(point["share"] * abs(point["probability"] - point["share_real"]) for point in points))


def kinds(images: Images, rng: np.random.Generator) -> Mapping[str, Images]:
    """What else people send to be scored, as many of each kind as there are images.

    ``flipped`` is the hardest: a mirrored 0, 1 or 8 looks like a real one.

    Args:
        images: uint8 [N, 28, 28], real digits to make some of the kinds from.
        rng: decides everything that is drawn.

    Returns:
        Name -> uint8 [N, 28, 28]: ``noise`` (uniform and normal by turns), ``blank`` (one level all over, black
        and white among them), ``inverted``, ``shuffled`` (the pixels of each image in another order), ``flipped``
        (left to right, upside down by turns) and ``shifted`` (by 4 to 8 pixels, the rest black).
    """
    noise = rng.integers(0, 256, images.shape, np.uint8)
    noise[1::2] = np.clip(rng.normal(127.5, 64, noise[1::2].shape), 0, 255).astype(np.uint8)
    levels = rng.integers(0, 256, len(images), np.uint8)
    levels[0::4], levels[1::4] = 0, 255
    flipped = images[:, :, ::-1].copy()
    flipped[1::2] = images[1::2, ::-1, :]
    return {
        "noise": noise,
        "blank": np.broadcast_to(levels[:, None, None], images.shape).copy(),
        "inverted": 255 - images,
        "shuffled": rng.permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape),
        "flipped": flipped,
        "shifted": shifted(images, rng),
    }


def shifted(images: Images, rng: np.random.Generator) -> Images:
    """Each image moved by 4 to 8 pixels along one axis or both, in any direction; what comes in is black.

    Args:
        images: uint8 [N, 28, 28].
        rng: decides the ways.
    """
    moves = rng.integers(LEAST_SHIFT, GREATEST_SHIFT + 1, (len(images), 2)) * rng.choice([-1, 1], (len(images), 2))
    moves[np.arange(len(images)), rng.integers(0, 2, len(images))] *= rng.integers(0, 2, len(images))
    margin = GREATEST_SHIFT
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))
    down, right = (margin - moves).T
    moved: Images = windows[np.arange(len(images)), down, right]
    return moved


def _scored(score: Score, images: Images) -> tuple[Floats, Floats]:
    logits, probabilities = score(images)
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        raise ValueError("the score gives logits or probabilities that are not finite")
    return logits, probabilities


def _histogram(real_logits: Floats, fake_logits: Floats) -> dict[str, list[float] | list[int]]:
    both = np.concatenate([real_logits, fake_logits]).astype(np.float64)
    low, high = np.quantile(both, [0.001, 0.999])
    edges = np.linspace(low, max(high, low + 1e-6), HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(np.clip(logits, edges[0], edges[-1]), edges)[0].tolist()
        for name, logits in (("real", real_logits), ("fake", fake_logits))
    }
    return {"edges": edges.tolist(), **counts}
