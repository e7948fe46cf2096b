"""How the figures of an evaluation are shown and judged."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from training.evaluation.figures import MEASURES, Measure

Evaluation = Mapping[str, Any]
"""What evaluation.json holds (:func:`training.evaluation.job.evaluate`)."""

ERROR: Final = "expected_calibration_error"
AUC_TARGET: Final = 0.95
KIND_TARGET: Final = 0.99
CALIBRATION_TARGET: Final = 0.03
TARGET_KINDS: Final = ("noise", "blank", "inverted", "shuffled")
"""The kinds of negative examples with a target. A mirrored 8 or a shifted 0 may look real."""


def with_margin(form: str, value: float, interval: Sequence[float]) -> str:
    """Formats a figure ± half of its interval."""
    number, unit = form.removesuffix(" %"), " %" if form.endswith(" %") else ""
    return f"{number.format(value)} ± {number.format(interval[1] - value)}{unit}"


def shown(measure: Measure, evaluation: Evaluation, of: str = "figures") -> str:
    """Formats a figure ("figures") or that of real images ("reference") ± half of its interval; of a list its range."""
    if measure.key not in evaluation[of]:
        return "–"
    intervals = evaluation["intervals" if of == "figures" else "reference_intervals"]
    value, interval = (measure.scale * np.array(each[measure.key]) for each in (evaluation[of], intervals))
    if value.ndim:
        return f"{measure.form.format(value.min()).removesuffix(' %')} to {measure.form.format(value.max())}"
    return with_margin(measure.form, float(value), interval.tolist())


def target(measure: Measure) -> str:
    """The target as a factor of the reference; empty if there is none."""
    if measure.at_least and measure.at_most:
        return f"{measure.at_least:g} to {measure.at_most:g} ×"
    return f"≥ {measure.at_least:g} ×" if measure.at_least else f"≤ {measure.at_most:g} ×" if measure.at_most else ""


def met(measure: Measure, evaluation: Evaluation) -> bool | None:
    """Returns whether the target is met; None if there is none, or if the figure misses it only by chance perhaps."""
    if measure not in judged(evaluation):
        return None
    own, other = (np.asarray(evaluation[name][measure.key]) for name in ("figures", "reference"))
    if not _beyond(measure, (own, own), (other, other)):
        return True
    own_ends, other_ends = (np.asarray(evaluation[name][measure.key]) for name in ("intervals", "reference_intervals"))
    return False if _beyond(measure, own_ends, other_ends) else None


def judged(evaluation: Evaluation) -> list[Measure]:
    """The measures with a target that the evaluation has."""
    return [each for each in MEASURES if target(each) and each.key in evaluation["figures"]]


def _beyond(measure: Measure, own: Any, other: Any) -> bool:
    """Whether all of one interval is beyond the target that any of the other one gives; low and high ends."""
    return bool(
        (measure.at_least is not None and (own[1] < measure.at_least * other[0]).any())
        or (measure.at_most is not None and (own[0] > measure.at_most * other[1]).any())
    )


def score_rows(score: Mapping[str, Any]) -> list[tuple[str, str, str, bool | None]]:
    """Returns a score's figures: name, value, target in words, and whether it is met (None without a target)."""
    area = "Area under the curve, real against "
    kinds = {kind: (f"{area}{kind.replace('_', ' ')}", KIND_TARGET * (kind in TARGET_KINDS)) for kind in score["kinds"]}
    lower = {"auc": (f"{area}generated", AUC_TARGET), "accuracy": ("Accuracy at a probability of ½", 0), **kinds}
    found = {**score, **score["kinds"]}
    values = {key: with_margin("{:.3f}", found[key], score["intervals"][key]) for key in (*lower, ERROR)}
    return [
        *(
            (name, values[key], f"≥ {bound}" if bound else "", found[key] >= bound if bound else None)
            for key, (name, bound) in lower.items()
        ),
        ("Expected calibration error", values[ERROR], f"≤ {CALIBRATION_TARGET}", found[ERROR] <= CALIBRATION_TARGET),
    ]


def results(evaluation: Evaluation) -> dict[str, list[str]]:
    """The names of the figures with a target by result: "met", "missed" or "missed, but perhaps by chance"."""
    results = {True: "met", False: "missed", None: "missed, but perhaps by chance"}
    found: dict[str, list[str]] = {result: [] for result in results.values()}
    for each in judged(evaluation):
        found[results[met(each, evaluation)]].append(each.name)
    return found
