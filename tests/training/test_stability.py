"""The verdict on a run's losses: each of its words has losses that earn it."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from training.stability import Stability, guesses, verdict

LN2 = math.log(2)
LINES = 300


def rows(
    generator: Callable[[float], float],
    discriminator: Callable[[float], float],
    lines: int = LINES,
    noise: float = 0.02,
    seed: int = 1,
) -> list[dict[str, float]]:
    """A log whose losses are functions of the share of the run that is over, with noise that lingers for some lines."""
    rng = np.random.default_rng(seed)
    lingering = np.convolve(rng.normal(0, noise, (lines + 4) * 2), np.ones(5) / math.sqrt(5), "valid")
    return [
        {
            "step": 10.0 * (line + 1),
            "epoch": line / 50,
            "generator_loss": generator((line + 1) / lines) + lingering[line],
            "discriminator_loss": discriminator((line + 1) / lines) + lingering[line + lines],
            "accuracy_real": 0.7,
            "accuracy_fake": 0.6,
        }
        for line in range(lines)
    ]


def test_where_the_losses_are_if_the_discriminator_can_only_guess() -> None:
    assert guesses("non-saturating") == (LN2, 2 * LN2)
    assert guesses("relativistic") == (LN2, LN2)


def test_flat_losses_are_stable_and_prove_nothing_about_the_digits() -> None:
    found = verdict(rows(lambda _: 0.9, lambda _: 1.2), "")
    assert found.state == "stable"
    assert found.words.startswith("Stable: in the last third of the run (steps 2,010 to 3,000) both losses were flat")
    assert "70 % of the real and 60 % of the generated images" in found.words
    assert "it would be 1.386 if the discriminator could only guess" in found.words
    assert "What it doesn't show: whether the digits are good" in found.words
    assert found.discriminator is not None
    assert found.discriminator.spread == pytest.approx(0.02, rel=0.3)


def test_what_came_before_the_last_third_does_not_count() -> None:
    assert verdict(rows(lambda t: 0.9 if t > 0.66 else 5 - 5 * t, lambda _: 1.2), "").state == "stable"


def test_a_loss_that_goes_on_rising_is_told_with_its_change() -> None:
    found = verdict(rows(lambda t: 0.9 + t, lambda _: 1.2), "")
    assert found.state == "drifting"
    assert "the generator's loss was rising" in found.words
    assert found.generator is not None
    assert found.generator.change == pytest.approx(1 / 3, abs=0.03)


def test_the_interval_holds_the_true_change_as_often_as_it_says() -> None:
    """Nineteen times in twenty, though neighbouring lines of the log are alike."""
    held = 0
    for seed in range(100):
        trend = verdict(rows(lambda t: 0.9 + t, lambda _: 1.2, seed=seed), "").generator
        assert trend is not None
        held += trend.change_low < 0.33 < trend.change_high
    assert held >= 88


def test_swinging_losses_are_restless() -> None:
    assert verdict(rows(lambda t: 1 + 0.9 * math.sin(200 * t), lambda _: 1.2), "").state == "swinging"


def test_noise_that_could_hide_a_drift_is_called_unclear() -> None:
    assert verdict(rows(lambda _: 0.9, lambda _: 1.2, noise=0.3), "").state == "unclear"


def test_a_discriminator_that_has_won_is_out_of_balance() -> None:
    found = verdict(rows(lambda _: 9.0, lambda _: 0.01, noise=0.001), "")
    assert found.state == "collapsed"
    assert found.words.startswith("Out of balance")


def test_losses_where_guessing_would_put_them_are_not_taken_for_an_equilibrium() -> None:
    found = verdict(rows(lambda _: LN2, lambda _: 2 * LN2, noise=0.001), "")
    assert found.state == "stable"
    assert "this discriminator can't tell; the losses don't say which" in found.words


def test_the_pairing_loss_is_held_against_its_own_guess() -> None:
    found = verdict(rows(lambda _: LN2, lambda _: LN2, noise=0.001), "relativistic")
    assert "the losses don't say which" in found.words
    assert "0.693 if the discriminator could only guess" in found.words


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_told_with_the_step(value: float) -> None:
    log = rows(lambda _: 0.9, lambda _: 1.2)
    log[7]["discriminator_loss"] = value
    found = verdict(log, "")
    assert found.state == "diverged"
    assert "by step 80 a loss was no longer a finite number" in found.words


@pytest.mark.parametrize("lines", [0, 1, 60])
def test_a_short_run_is_not_judged(lines: int) -> None:
    found = verdict(rows(lambda _: 0.9, lambda _: 1.2, lines=lines), "")
    assert found.state == "short"
    assert found.generator is None


def test_a_constant_loss_has_no_spread() -> None:
    found = verdict(rows(lambda _: 0.9, lambda _: 1.2, noise=0), "")
    assert found.state == "stable"
    assert found.generator is not None
    assert found.generator.spread == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("found", [verdict([], ""), verdict(rows(lambda _: 0.9, lambda _: 1.2), "")])
def test_the_figures_are_json(found: Stability) -> None:
    figures = json.loads(json.dumps(found.figures, allow_nan=False))
    assert figures["state"] == found.state
