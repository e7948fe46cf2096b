"""The figures of an evaluation: their names, how they are computed, and the targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from serving.contract import CLASSES

Figures = Mapping[str, Any]


def with_margin(form: str, value: float, interval: Sequence[float] | None, scale: float = 1) -> str:
    """Formats a figure ± half of its interval."""
    if not interval:
        return form.format(scale * value)
    number, unit = form.removesuffix(" %"), " %" if form.endswith(" %") else ""
    return f"{number.format(scale * value)} ± {number.format(scale * (interval[1] - value))}{unit}"


@dataclass(frozen=True)
class Criterion:
    """A row of the report's table.

    Attributes:
        key: the figure's name in evaluation.json.
        name: its name in the report.
        how: how it is computed, in a sentence, with its source.
        form: how it is formatted; ``scale`` times the figure.
        at_most: the target, as a factor of the reference's figure; None if there is no such target.
        at_least: the same for a lower bound.
        scale: see ``form``.
    """

    key: str
    name: str
    how: str
    form: str
    at_most: float | None = None
    at_least: float | None = None
    scale: float = 1

    def show(self, figures: Figures, intervals: Figures | None = None) -> str:
        """Formats the figure ± half of its interval; of ``class_shares`` the least and the greatest."""
        if self.key not in figures:
            return "–"
        value = figures[self.key]
        if isinstance(value, list):
            return f"{self.form.format(100 * min(value))} to {self.form.format(100 * max(value))} %"
        return with_margin(self.form, value, (intervals or {}).get(self.key), self.scale)

    @property
    def target(self) -> str:
        """The target as a factor of the reference; empty if there is none."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g} ×"
        if self.at_least is not None:
            return f"≥ {self.at_least:g} ×"
        return f"≤ {self.at_most:g} ×" if self.at_most is not None else ""

    def judged(self, evaluation: Mapping[str, Any]) -> bool:
        """Whether there is a target, and a figure and a reference to compare."""
        return bool(self.target) and all(self.key in (evaluation.get(name) or {}) for name in ("figures", "reference"))

    def met(self, evaluation: Mapping[str, Any]) -> bool | None:
        """Returns whether the target is met; None if it is not judged, or if the intervals are too wide to say so.

        So a sample of real digits does not miss a target by chance.
        """
        if not self.judged(evaluation):
            return None
        own, other = (np.asarray(evaluation[name][self.key]) for name in ("figures", "reference"))
        if not self._beyond((own, own), (other, other)):
            return True
        ends = (evaluation.get(name, {}).get(self.key) for name in ("intervals", "reference_intervals"))
        own_ends, other_ends = (
            tuple(map(np.asarray, each or (value, value))) for each, value in zip(ends, (own, other), strict=True)
        )
        return None if not self._beyond(own_ends, other_ends) else False

    def _beyond(self, own: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        """Whether all of one interval is beyond the target that any of the other one gives; low and high ends."""
        return bool(
            (self.at_least is not None and (own[1] < self.at_least * other[0]).any())
            or (self.at_most is not None and (own[0] > self.at_most * other[1]).any())
        )


CRITERIA: Final = (
    Criterion(
        "frechet_distance",
        "Fréchet distance",
        "The distance of two normal distributions fitted to the features of generated and of real digits: how far "
        "apart their means and covariances are (Heusel et al. 2017).",
        "{:.2f}",
        at_most=2.5,
    ),
    Criterion(
        "kernel_distance",
        "Kernel distance × 1,000",
        "The squared maximum mean discrepancy of the features under a cubic kernel, without bias (Bińkowski et al. "
        "2018).",
        "{:.3f}",
        scale=1000,
    ),
    Criterion(
        "precision",
        "Precision",
        "The share of generated digits that are within the distance of a real digit to its third neighbour "
        "(Kynkäänniemi et al. 2019).",
        "{:.3f}",
        at_least=0.9,
    ),
    Criterion(
        "recall",
        "Recall",
        "The share of real digits that are within the distance of a generated digit to its third neighbour "
        "(Kynkäänniemi et al. 2019).",
        "{:.3f}",
        at_least=0.9,
    ),
    Criterion(
        "density",
        "Density",
        "How many real digits have a generated digit within the distance to their fifth neighbour, counted over the "
        "generated digits and divided by five; it can exceed 1 (Naeem et al. 2020).",
        "{:.3f}",
        at_least=0.9,
    ),
    Criterion(
        "coverage",
        "Coverage",
        "The share of real digits with a generated digit within the distance to their fifth neighbour (Naeem et al. "
        "2020).",
        "{:.3f}",
        at_least=0.9,
    ),
    Criterion(
        "digit_score",
        "MNIST score",
        "The Inception score's formula with the digit classifier: high if each digit is classified with confidence and "
        "all ten occur; 10 is the maximum (Salimans et al. 2016).",
        "{:.3f}",
    ),
    Criterion(
        "legible",
        "Legible digits",
        "The share of digits that the classifier recognises with a probability of at least 0.99.",
        "{:.1f} %",
        at_least=0.95,
        scale=100,
    ),
    Criterion(
        "class_shares",
        "Share of each digit",
        "The shares of the images that are classified as 0, as 1, and so on: the least and the greatest.",
        "{:.1f}",
        at_least=0.8,
        at_most=1.2,
    ),
    Criterion(
        "class_kl",
        "Imbalance",
        "The Kullback-Leibler divergence of those shares from the real digits' shares, in nats; 0 if they are equal "
        "(Kullback & Leibler 1951).",
        "{:.4f}",
    ),
    Criterion(
        "nearest_distance",
        "Distance to training image",
        "The median distance of a digit to the nearest training image: Euclidean, on pixels from 0 to 1.",
        "{:.2f}",
    ),
    Criterion(
        "nearest_distance_ratio",
        "The same over test images'",
        "That median, divided by the median of the test images. Well below 1 the generator is nearer to its training "
        "images than new handwriting is, which means that it memorised them (Meehan et al. 2020).",
        "{:.3f}",
        at_least=0.95,
    ),
    Criterion(
        "duplicates",
        "Duplicates",
        "The share of digits with another one in the sample that is equal or almost equal, pixel by pixel.",
        "{:.1f} %",
        scale=100,
    ),
)

ERROR: Final = "expected_calibration_error"
AUC_TARGET: Final = 0.95
KIND_TARGET: Final = 0.99
CALIBRATION_TARGET: Final = 0.03
TARGET_KINDS: Final = ("noise", "blank", "inverted", "shuffled")
"""The kinds of negative examples with a target. A mirrored 8 or a shifted 0 may look real."""


def score_rows(score: Mapping[str, Any]) -> list[tuple[str, str, str, bool | None]]:
    """Returns a score's figures: name, value, target in words, and whether it is met (None without a target)."""
    area = "Area under the curve, real against "
    kinds = {kind: (f"{area}{kind.replace('_', ' ')}", KIND_TARGET * (kind in TARGET_KINDS)) for kind in score["kinds"]}
    lower = {"auc": (f"{area}generated", AUC_TARGET), "accuracy": ("Accuracy at a probability of ½", 0), **kinds}
    found = {**score, **score["kinds"]}
    shown = {key: with_margin("{:.3f}", found[key], score.get("intervals", {}).get(key)) for key in (*lower, ERROR)}
    return [
        *(
            (name, shown[key], f"≥ {bound}" if bound else "", found[key] >= bound if bound else None)
            for key, (name, bound) in lower.items()
        ),
        ("Expected calibration error", shown[ERROR], f"≤ {CALIBRATION_TARGET}", found[ERROR] <= CALIBRATION_TARGET),
    ]


def shares(figures: Figures) -> list[str]:
    """Formats the share of each digit, in per cent."""
    return [f"{100 * share:.1f}" for share in figures.get("class_shares", [0] * CLASSES)]


def conclusion(evaluation: Mapping[str, Any]) -> str:
    """Summarises an evaluation in a paragraph."""
    figures, reference = evaluation["figures"], evaluation.get("reference")
    met = {each.name: each.met(evaluation) for each in CRITERIA if each.judged(evaluation)}
    words = [f"{list(met.values()).count(True)} of {len(met)} targets are met"]
    for result, verb in ((False, "missed"), (None, "missed, but perhaps by chance")):
        if names := [name for name, each in met.items() if each is result]:
            words[0] += f"; {verb}: {', '.join(names)}"
    words[0] += "."
    distance = f"The Fréchet distance is {figures['frechet_distance']:.2f}"
    if reference:
        distance += f", {figures['frechet_distance'] / reference['frechet_distance']:.1f} times that of real digits"
    words.append(
        f"{distance}; the classifier recognises {100 * figures['legible']:.1f} % of the digits with certainty, and "
        f"{100 * figures['coverage']:.0f} % of the real digits have a generated one near them."
    )
    if score := evaluation.get("score"):
        words.append(
            f"The discriminator gives a real digit a higher score than a generated one {100 * score['auc']:.1f} % of "
            f"the time, and its probability is wrong by {100 * score['expected_calibration_error']:.1f} points on "
            "average."
        )
    return " ".join(words)
