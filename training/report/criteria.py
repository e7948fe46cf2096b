"""The figures of an evaluation: their names, how they are computed, and the targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from serving.contract import CLASSES

Figures = Mapping[str, Any]


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

    def show(self, figures: Figures, intervals: Mapping[str, Any] | None = None) -> str:
        """Formats the figure and its interval, if there is one; of ``class_shares`` the least and the greatest."""
        if self.key not in figures:
            return "–"
        value = figures[self.key]
        if isinstance(value, list):
            return f"{self.form.format(100 * min(value))} to {self.form.format(100 * max(value))} %"
        shown = self.form.format(self.scale * value)
        if intervals and self.key in intervals:
            low, high = (self.form.format(self.scale * end).removesuffix(" %") for end in intervals[self.key])
            shown += f" ({low} to {high})"
        return shown

    @property
    def target(self) -> str:
        """The target as a factor of the reference; empty if there is none."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g} ×"
        if self.at_least is not None:
            return f"≥ {self.at_least:g} ×"
        return f"≤ {self.at_most:g} ×" if self.at_most is not None else ""

    def met(self, figures: Figures, reference: Figures | None) -> bool | None:
        """Returns whether the target is met; None if there is none, or no figure or reference to compare."""
        if not self.target or reference is None or self.key not in figures or self.key not in reference:
            return None
        own, others = (each if isinstance(each, list) else [each] for each in (figures[self.key], reference[self.key]))
        return all(
            (self.at_least is None or value >= self.at_least * other)
            and (self.at_most is None or value <= self.at_most * other)
            for value, other in zip(own, others, strict=True)
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

AUC_TARGET: Final = 0.95
KIND_TARGET: Final = 0.99
CALIBRATION_TARGET: Final = 0.03
TARGET_KINDS: Final = ("noise", "blank", "inverted", "shuffled")
"""The kinds of negative examples with a target. A mirrored 8 or a shifted 0 may look real."""


def score_rows(score: Mapping[str, Any]) -> list[tuple[str, float, str, bool | None]]:
    """Returns a score's figures: name, value, target in words, and whether it is met (None without a target)."""
    auc, error = score["auc"], score["expected_calibration_error"]
    return [
        ("Area under the curve, real against generated", auc, f"≥ {AUC_TARGET}", auc >= AUC_TARGET),
        ("Accuracy at a probability of ½", score["accuracy"], "", None),
        ("Expected calibration error", error, f"≤ {CALIBRATION_TARGET}", error <= CALIBRATION_TARGET),
        *(
            (
                f"Area under the curve, real against {kind.replace('_', ' ')}",
                value,
                f"≥ {KIND_TARGET}" if kind in TARGET_KINDS else "",
                value >= KIND_TARGET if kind in TARGET_KINDS else None,
            )
            for kind, value in score["kinds"].items()
        ),
    ]


def shares(figures: Figures) -> list[str]:
    """Formats the share of each digit, in per cent."""
    return [f"{100 * share:.1f}" for share in figures.get("class_shares", [0] * CLASSES)]


def conclusion(evaluation: Mapping[str, Any]) -> str:
    """Summarises an evaluation in a paragraph."""
    figures, reference = evaluation["figures"], evaluation.get("reference")
    met = {criterion.name: criterion.met(figures, reference) for criterion in CRITERIA}
    missed = [name for name, each in met.items() if each is False]
    judged = sum(each is not None for each in met.values())
    words = [
        f"{judged - len(missed)} of {judged} targets are met" + (f"; missed: {', '.join(missed)}." if missed else ".")
    ]
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
