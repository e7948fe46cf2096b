"""Whether the losses of a run were stable: the change of each over the last third, and what it means in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress

from training.config import METRICS
from training.evaluation.statistics import half_width
from training.gan.losses import chance_losses

LAST_PART: Final = 1 / 3
"""The share of the run, at its end, that is judged."""
BLOCKS: Final = 10
"""Blocks in the last part. Neighbouring lines of a log are alike; means over long blocks are nearly independent, and
the confidence interval of the slope needs that (the method of batch means, Conway 1963)."""
MIN_LINES: Final = 3 * BLOCKS
"""Lines that the last part needs."""
FLAT: Final = 0.1
"""A loss is stable if its change over the last part is less than this share of its mean."""
VANISHED: Final = 0.05
"""A discriminator's loss below this share of its chance level gives the generator almost no gradient."""


def verdict(rows: Sequence[Mapping[str, float]], loss: str) -> dict[str, Any]:
    """Judges the last third of a run, by the lines of its log, oldest first, and the recipe's ``loss``.

    Gives a ``state`` ("stable", "moving", "unclear" or "failed") and the reasons in ``words``. Except for runs that are
    too short or diverged it also gives the numbers: for each network the ``mean`` loss, its ``chance`` level, its
    ``change`` over that part and the ends of the change's 95 % interval.
    """
    for row in rows:
        if not (math.isfinite(row["generator_loss"]) and math.isfinite(row["discriminator_loss"])):
            words = f"The run diverged: at step {int(row['step']):,} a loss was not a finite number."
            hint = "Try a smaller learning rate, or float32 instead of mixed precision."
            return {"state": "failed", "words": f"{words} {hint}"}
    part = [row for row in rows if row["step"] > rows[-1]["step"] * (1 - LAST_PART)]
    if len(part) < MIN_LINES:
        words = f"The run is too short: its last third has {len(part)} lines of log, and a confidence interval needs at"
        return {"state": "unclear", "words": f"{words} least {MIN_LINES}."}
    columns = {name: np.array([row[name] for row in part], np.float64) for name in ("step", *METRICS)}
    trends = {
        name: _trend(columns["step"], columns[f"{name}_loss"], chance)
        for name, chance in zip(("generator", "discriminator"), chance_losses(loss), strict=True)
    }
    accuracy = {name: float(columns[name].mean()) for name in ("accuracy_real", "accuracy_fake")}
    state, reason = _state(trends)
    first, last = (int(columns["step"][place]) for place in (0, -1))
    # Only differences of a relativistic discriminator's logits have a meaning (training.gan.step.Trainer).
    threshold = ", with the middle of its logits as the threshold" if loss == "relativistic" else ""
    sentences = [
        f"In the last third of the run (steps {first:,} to {last:,}) {reason}.",
        *(
            f"The {name}'s loss: mean {trend['mean']:.3f}, change {trend['change']:+.3f} "
            f"(95 % interval {trend['change_low']:+.3f} to {trend['change_high']:+.3f}); "
            f"a discriminator that guesses gives {trend['chance']:.3f}."
            for name, trend in trends.items()
        ),
        f"The discriminator classified {_percent(accuracy['accuracy_real'])} of the real and "
        f"{_percent(accuracy['accuracy_fake'])} of the generated images correctly{threshold}; guessing gives 50 %.",
    ]
    return {"state": state, "words": " ".join(sentences), "first_step": first, **accuracy, **trends}


def _trend(steps: NDArray[np.float64], losses: NDArray[np.float64], chance: float) -> dict[str, float]:
    """Fits a straight line to the means of the blocks."""
    x, y = (np.array([block.mean() for block in np.array_split(values, BLOCKS)]) for values in (steps, losses))
    line = linregress(x, y)
    length = steps[-1] - steps[0]
    change = line.slope * length
    error = line.stderr if math.isfinite(line.stderr) else 0.0  # SciPy gives none for a constant.
    margin = error * length * half_width(BLOCKS - 2)
    numbers = (losses.mean(), chance, change, change - margin, change + margin)
    return dict(zip(("mean", "chance", "change", "change_low", "change_high"), map(float, numbers), strict=True))


def _state(trends: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    if trends["discriminator"]["mean"] < VANISHED * trends["discriminator"]["chance"]:
        return "failed", "the discriminator's loss almost vanished, so the generator could not learn from it"
    flat = [max(-each["change_low"], each["change_high"]) <= FLAT * each["mean"] for each in trends.values()]
    if all(flat):
        return "stable", f"both losses changed by less than {_percent(FLAT)} of their size"
    moving = [
        f"the {name}'s loss was {'rising' if each['change'] > 0 else 'falling'}"
        for (name, each), is_flat in zip(trends.items(), flat, strict=True)
        if not is_flat and each["change_low"] * each["change_high"] > 0
    ]
    if moving:
        return "moving", " and ".join(moving)
    return "unclear", "the losses vary too much to decide whether they are stable"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
