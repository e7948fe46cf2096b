"""Was a run stable? Slope and spread of its losses over the last third, and what they say in plain words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RELATIVISTIC: Final = "relativistic"
"""The name of the pairing loss (Jolicoeur-Martineau 2019) among the recipes' losses."""

LAST_PART: Final = 1 / 3
"""The share of the run, at its end, that is judged."""
BLOCKS: Final = 10
"""Blocks that the last part is cut into. Lines of the log follow each other and are not independent; means over long
blocks nearly are, and the confidence interval of the slope needs that (the method of batch means, Conway 1963)."""
LEAST_LINES: Final = 3 * BLOCKS
"""Lines that the last part must have to be judged."""
LEVEL: Final = 0.95
"""Of the confidence interval."""
FLAT: Final = 0.1
"""A loss is flat if it surely changed by less than this share of its mean over the last part."""
WIDE: Final = 0.5
"""A loss swings if its standard deviation about the straight line is more than this share of its mean."""
COLLAPSED: Final = 0.05
"""A discriminator's loss below this share of what guessing costs teaches the generator nothing any more."""
GUESSING: Final = 0.02
"""Losses nearer than this share to what guessing costs can't be told from it."""

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Trend:
    """How one loss went over the last part of a run. All in nats; changes are over the whole last part.

    Attributes:
        mean: its mean.
        guess: where it would be if the discriminator could only guess.
        change: the slope of the straight line through the block means, times the length of the last part.
        change_low: lower end of the change's confidence interval.
        change_high: upper end.
        spread: standard deviation of the log's lines about that straight line.
        direction: ``flat``, ``rising``, ``falling``, or ``unclear`` where the interval holds more than one of these.
    """

    mean: float
    guess: float
    change: float
    change_low: float
    change_high: float
    spread: float
    direction: str

    @property
    def swings(self) -> bool:
        """Whether it goes up and down by much of its own size."""
        return self.spread > WIDE * self.mean


@dataclass(frozen=True)
class Stability:
    """The verdict on a run's losses.

    Attributes:
        state: ``stable``, ``drifting``, ``swinging``, ``unclear``, ``collapsed``, ``diverged`` or ``short``.
        first_step: where the part that was judged begins; None where none was.
        last_step: the last step in the log; None where the log is empty.
        generator: the generator's loss; None where the run is too short or has diverged.
        discriminator: the discriminator's.
        accuracy_real: share of real images that the discriminator told rightly in that part.
        accuracy_fake: the same for generated ones.
        words: the verdict in plain words.
    """

    state: str
    first_step: int | None
    last_step: int | None
    generator: Trend | None
    discriminator: Trend | None
    accuracy_real: float | None
    accuracy_fake: float | None
    words: str

    @property
    def figures(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return asdict(self)


def guesses(loss: str) -> tuple[float, float]:
    """The generator's and the discriminator's loss, in nats, where the discriminator can only guess.

    The non-saturating loss is softplus(-D(G(z))) for the generator and softplus(-D(x)) + softplus(D(G(z))) for the
    discriminator (Goodfellow et al. 2014): ln 2 and 2 ln 2 at logits of 0. The relativistic pairing loss is the
    softplus of one difference of logits for each of them (Jolicoeur-Martineau 2019): ln 2 and ln 2.

    Args:
        loss: the recipe's field of that name.
    """
    return math.log(2), (1 if loss == RELATIVISTIC else 2) * math.log(2)


def verdict(rows: Rows, loss: str) -> Stability:
    """Judges the last third of a run.

    Args:
        rows: the lines of the run's log, oldest first (:meth:`training.metrics.MetricsLog.rows`).
        loss: the recipe's ``loss``.
    """
    last_step = int(rows[-1]["step"]) if rows else None
    for row in rows:
        if not (math.isfinite(row["generator_loss"]) and math.isfinite(row["discriminator_loss"])):
            words = (
                f"The run diverged: by step {int(row['step']):,} a loss was no longer a finite number. Nothing after "
                "that is worth looking at. Try a smaller learning rate first, or float32 in place of mixed precision."
            )
            return Stability("diverged", None, last_step, None, None, None, None, words)
    part = [row for row in rows if last_step and row["step"] > last_step * (1 - LAST_PART)]
    if len(part) < LEAST_LINES:
        words = (
            f"Too short to judge: the last third of the run has {len(part)} lines of log, and a slope with an honest "
            f"confidence interval needs {LEAST_LINES} or more."
        )
        return Stability("short", None, last_step, None, None, None, None, words)
    steps = np.array([row["step"] for row in part], np.float64)
    generator, discriminator = (
        _trend(steps, np.array([row[name] for row in part], np.float64), guess)
        for name, guess in zip(("generator_loss", "discriminator_loss"), guesses(loss), strict=True)
    )
    real, fake = (float(np.mean([row[name] for row in part])) for name in ("accuracy_real", "accuracy_fake"))
    state = _state(generator, discriminator)
    words = " ".join(
        [
            _opening(state, generator, discriminator, int(part[0]["step"]), int(part[-1]["step"])),
            _numbers("generator", generator),
            _numbers("discriminator", discriminator),
            _distance_from_guessing(generator, discriminator, real, fake, loss),
            "What this shows: whether either network was still gaining on the other. What it doesn't show: whether the "
            "digits are good, or all ten are there. A weak pair can hold each other in balance as well as a strong "
            "one; for the digits, look at the metrics.",
        ]
    )
    return Stability(state, int(part[0]["step"]), last_step, generator, discriminator, real, fake, words)


def _trend(steps: NDArray[np.float64], losses: NDArray[np.float64], guess: float) -> Trend:
    from scipy import stats

    x, y = (np.array([block.mean() for block in np.array_split(values, BLOCKS)]) for values in (steps, losses))
    line = stats.linregress(x, y)
    length = float(steps[-1] - steps[0])
    change = float(line.slope) * length
    error = float(line.stderr) if math.isfinite(line.stderr) else 0.0  # SciPy gives none for a constant.
    margin = error * float(stats.t.ppf((1 + LEVEL) / 2, BLOCKS - 2)) * length
    mean = float(losses.mean())
    low, high = change - margin, change + margin
    if max(abs(low), abs(high)) <= FLAT * mean:
        direction = "flat"
    elif low > 0:
        direction = "rising"
    elif high < 0:
        direction = "falling"
    else:
        direction = "unclear"
    spread = float(np.std(losses - (line.intercept + line.slope * steps)))
    return Trend(mean, guess, change, low, high, spread, direction)


def _state(generator: Trend, discriminator: Trend) -> str:
    both = (generator, discriminator)
    if discriminator.mean < COLLAPSED * discriminator.guess:
        return "collapsed"
    if any(trend.swings for trend in both):
        return "swinging"
    if any(trend.direction in ("rising", "falling") for trend in both):
        return "drifting"
    return "stable" if all(trend.direction == "flat" for trend in both) else "unclear"


def _opening(state: str, generator: Trend, discriminator: Trend, first: int, last: int) -> str:
    part = f"in the last third of the run (steps {first:,} to {last:,})"
    moving = " and ".join(
        f"the {name}'s loss was {trend.direction}"
        for name, trend in (("generator", generator), ("discriminator", discriminator))
        if trend.direction in ("rising", "falling")
    )
    return {
        "stable": f"Stable: {part} both losses were flat, their change surely below {_percent(FLAT)} of their size.",
        "drifting": f"Still moving: {part} {moving}.",
        "swinging": f"Restless: {part} a loss swung by more than {_percent(WIDE)} of its size about its course.",
        "unclear": f"Not settled either way: {part} the losses swing too much, or for too short a time, to tell flat "
        "from drifting.",
        "collapsed": f"Out of balance: {part} the discriminator told nearly everything rightly and its loss all but "
        "vanished, so the generator had next to nothing to learn from.",
    }[state]


def _numbers(name: str, trend: Trend) -> str:
    interval = f"{_percent(LEVEL)} interval {trend.change_low:+.3f} to {trend.change_high:+.3f}"
    return (
        f"The {name}'s loss: mean {trend.mean:.3f}, change {trend.change:+.3f} ({interval}), spread "
        f"{trend.spread:.3f}; it would be {trend.guess:.3f} if the discriminator could only guess."
    )


def _distance_from_guessing(generator: Trend, discriminator: Trend, real: float, fake: float, loss: str) -> str:
    if all(abs(trend.mean - trend.guess) < GUESSING * trend.guess for trend in (generator, discriminator)):
        return (
            "Both are where guessing would put them: either the generator's images can't be told from real ones, or "
            "this discriminator can't tell; the losses don't say which."
        )
    # Only the differences of a relativistic discriminator's logits mean anything (training.step.Trainer).
    by = ", by the middle of its logits" if loss == RELATIVISTIC else ""
    return (
        f"The discriminator told {_percent(real)} of the real and {_percent(fake)} of the generated images rightly{by};"
        " guessing gives 50 %."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
