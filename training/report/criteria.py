"""What an evaluation's figures are called, how they are computed, and what is asked of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Figures = Mapping[str, Any]
Rule = Callable[[Figures, Figures | None], bool | None]
"""From an evaluation's figures and its floor's to whether a target is met; None where an unknown floor would tell."""

LEAST_SHARE: Final = 0.08
GREATEST_SHARE: Final = 0.12


@dataclass(frozen=True)
class Criterion:
    """A row of the report's table.

    Attributes:
        key: the figure's name in evaluation.json.
        name: what the report calls it.
        how: how it is computed, in a sentence, with its source.
        show: from the figures to the text of the cell.
        target: what is asked, in words; empty where nothing is.
        met: whether it is met.
    """

    key: str
    name: str
    how: str
    show: Callable[[Figures], str]
    target: str = ""
    met: Rule = lambda figures, floor: None


@dataclass(frozen=True)
class Outcome:
    """One target, held against an evaluation. ``met`` is None where that can't be told."""

    criterion: Criterion
    met: bool | None


def _number(key: str, form: str) -> Callable[[Figures], str]:
    return lambda figures: format(figures[key], form)


def _percent(key: str) -> Callable[[Figures], str]:
    return lambda figures: f"{100 * figures[key]:.1f} %"


def _kernel_distance(figures: Figures) -> str:
    return f"{1e3 * figures['kernel_distance']:.3f} ± {1e3 * figures['kernel_distance_error']:.3f}"


def _shares(figures: Figures) -> str:
    shares = figures["class_shares"]
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"


def _at_most(key: str, factor: float) -> Rule:
    return lambda figures, floor: None if floor is None else bool(figures[key] <= factor * floor[key])


def _at_least(key: str, factor: float) -> Rule:
    return lambda figures, floor: None if floor is None else bool(figures[key] >= factor * floor[key])


CRITERIA: Final = (
    Criterion(
        "frechet_distance",
        "Fréchet distance",
        "The distance of two normal distributions fitted to the features of generated and of real digits: how far off "
        "their mean and covariance are (Heusel et al. 2017).",
        _number("frechet_distance", ".2f"),
        "≤ 2.5 × floor",
        _at_most("frechet_distance", 2.5),
    ),
    Criterion(
        "kernel_distance",
        "Kernel distance × 1,000",
        "The squared maximum mean discrepancy of the features under a cubic kernel, without bias, with its "
        "standard error by the jackknife (Bińkowski et al. 2018).",
        _kernel_distance,
    ),
    Criterion(
        "precision",
        "Precision",
        "The share of generated digits that lie among the real ones: within the reach of some real digit's third "
        "neighbour (Kynkäänniemi et al. 2019).",
        _number("precision", ".3f"),
        "≥ 0.9 × floor",
        _at_least("precision", 0.9),
    ),
    Criterion(
        "recall",
        "Recall",
        "The same the other way round: the share of real digits that lie among the generated ones (Kynkäänniemi et al. "
        "2019).",
        _number("recall", ".3f"),
        "≥ 0.9 × floor",
        _at_least("recall", 0.9),
    ),
    Criterion(
        "density",
        "Density",
        "How many real digits have a generated one within the reach of their fifth neighbour, counted over the "
        "generated ones and divided by five; it can exceed 1 (Naeem et al. 2020).",
        _number("density", ".3f"),
        "≥ 0.9 × floor",
        _at_least("density", 0.9),
    ),
    Criterion(
        "coverage",
        "Coverage",
        "The share of real digits that have a generated one within the reach of their fifth neighbour (Naeem et al. "
        "2020).",
        _number("coverage", ".3f"),
        "≥ 0.9 × floor",
        _at_least("coverage", 0.9),
    ),
    Criterion(
        "digit_score",
        "MNIST score",
        "The Inception score's formula with the digit classifier: high where each digit is read with confidence and "
        "all ten occur; 10 is the most (Salimans et al. 2016).",
        _number("digit_score", ".3f"),
    ),
    Criterion(
        "legible",
        "Legible digits",
        "The share of digits that the classifier reads with a probability of 0.99 or more.",
        _percent("legible"),
        "≥ 95 %",
        lambda figures, floor: bool(figures["legible"] >= 0.95),
    ),
    Criterion(
        "class_shares",
        "Share of each digit",
        "How much of the whole reads as 0, as 1, and so on: the least and the greatest share.",
        _shares,
        "8 to 12 % each",
        lambda figures, floor: (
            LEAST_SHARE <= min(figures["class_shares"]) <= max(figures["class_shares"]) <= GREATEST_SHARE
        ),
    ),
    Criterion(
        "class_kl",
        "Imbalance",
        "The Kullback-Leibler divergence of those shares from the real digits' shares, in nats; 0 where they agree "
        "(Kullback & Leibler 1951).",
        _number("class_kl", ".4f"),
    ),
    Criterion(
        "nearest_distance",
        "Distance to training image",
        "The median distance of a generated digit to the nearest training image: Euclidean, on pixels from 0 to 1.",
        _number("nearest_distance", ".2f"),
    ),
    Criterion(
        "nearest_distance_ratio",
        "The same over test images'",
        "That median, divided by the test images' own: below 1 the generator would be nearer to what it was trained on "
        "than fresh handwriting is, which is what learning by heart looks like (Meehan et al. 2020).",
        _number("nearest_distance_ratio", ".3f"),
        "≥ 1",
        lambda figures, floor: bool(figures["nearest_distance_ratio"] >= 1),
    ),
    Criterion(
        "duplicates",
        "Duplicates",
        "The share of digits that have another one in the sample that is equal or nearly so, pixel by pixel.",
        _percent("duplicates"),
    ),
)

AUC_TARGET: Final = 0.95
KIND_TARGET: Final = 0.99
CALIBRATION_TARGET: Final = 0.03
HELD_KINDS: Final = ("noise", "blank", "inverted", "shuffled")
"""The kinds of other images that KIND_TARGET is asked for. A mirrored 8 or a 0 moved a little may pass for real."""


def outcomes(figures: Figures, floor: Figures | None) -> list[Outcome]:
    """Every target, held against an evaluation. A figure that isn't there is left out."""
    return [
        Outcome(criterion, criterion.met(figures, floor))
        for criterion in CRITERIA
        if criterion.target and criterion.key in figures
    ]


def score_outcomes(score: Mapping[str, Any]) -> list[tuple[str, float, str, bool | None]]:
    """A score's figures: name, value, target in words, and whether it is met (None where nothing is asked)."""
    auc, error = score["auc"], score["expected_calibration_error"]
    return [
        ("Area under the curve, real against generated", auc, f"≥ {AUC_TARGET}", auc >= AUC_TARGET),
        ("Accuracy at a probability of ½", score["accuracy"], "", None),
        ("Expected calibration error", error, f"≤ {CALIBRATION_TARGET}", error <= CALIBRATION_TARGET),
        *(
            (
                f"Area under the curve, real against {kind}",
                value,
                f"≥ {KIND_TARGET}" if kind in HELD_KINDS else "",
                value >= KIND_TARGET if kind in HELD_KINDS else None,
            )
            for kind, value in score["kinds"].items()
        ),
    ]


def conclusion(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation comes to, in a paragraph of plain words."""
    figures, floor, deck = evaluation["figures"], evaluation.get("floor"), evaluation.get("deck")
    held = [outcome for outcome in outcomes(figures, floor) if outcome.met is not None]
    missed = [outcome.criterion.name for outcome in held if not outcome.met]
    words = [
        f"All {len(held)} targets are met."
        if not missed
        else f"{len(held) - len(missed)} of {len(held)} targets are met; missed: {', '.join(missed)}."
    ]
    distance = figures["frechet_distance"]
    told = f"The Fréchet distance is {distance:.2f}"
    if floor:
        told += f", {distance / floor['frechet_distance']:.1f} times what real digits have among themselves"
    words.append(
        f"{told}; the classifier reads {100 * figures['legible']:.1f} % of the digits without doubt, and the modes of "
        f"real handwriting are covered to {100 * figures['coverage']:.0f} %."
    )
    if deck:
        words.append(
            f"The course deck's own recipe after {deck['steps']:,} steps stands at {deck['frechet_distance']:.1f}, "
            f"with {100 * deck['legible']:.0f} % legible."
        )
    if score := evaluation.get("score"):
        words.append(
            f"The discriminator ranks a real digit above a generated one {100 * score['auc']:.1f} % of the time, and "
            f"its probability is off by {100 * score['expected_calibration_error']:.1f} points on average."
        )
    return " ".join(words)
