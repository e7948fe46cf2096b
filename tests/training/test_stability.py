"""The verdict on a run's losses: losses for each of its states."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from training.run.stability import verdict

LN2 = math.log(2)
Loss = Callable[[float], float]


def rows(
    generator: Loss, discriminator: Loss, lines: int = 300, noise: float = 0.02, seed: int = 1
) -> list[dict[str, float]]:
    """A log whose losses are functions of the share of the run that is over, with noise that lasts for some lines."""
    rng = np.random.default_rng(seed)
    lasting = np.convolve(rng.normal(0, noise, (lines + 4) * 2), np.ones(5) / math.sqrt(5), "valid")
    return [
        {
            "step": 10.0 * (line + 1),
            "epoch": line / 50,
            "generator_loss": generator((line + 1) / lines) + lasting[line],
            "discriminator_loss": discriminator((line + 1) / lines) + lasting[line + lines],
            "accuracy_real": 0.7,
            "accuracy_fake": 0.6,
        }
        for line in range(lines)
    ]


def test_flat_losses_are_stable_whatever_came_before_the_last_third() -> None:
    found = verdict(rows(lambda t: 0.9 if t > 0.66 else 5 - 5 * t, lambda _: 1.2), "non-saturating")
    assert found["state"] == "stable"
    assert found["words"].startswith("In the last third of the run (steps 2,010 to 3,000) both losses changed by less")
    assert "70 % of the real and 60 % of the generated images correctly; guessing gives 50 %" in found["words"]
    assert "a discriminator that guesses gives 1.386" in found["words"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("generator", "discriminator", "noise", "state", "words"),
    [
        (lambda t: 1.2 + t, lambda _: 1.2, 0.02, "moving", "the generator's loss was rising"),
        (lambda t: 1.2 - 0.8 * t, lambda _: 1.2, 0.02, "moving", "the generator's loss was falling"),
        (lambda _: 0.9, lambda _: 1.2, 0.3, "unclear", "vary too much to decide"),
        (lambda _: 0.9, lambda _: 1.2, 0, "stable", "both losses changed by less than 10 %"),
        (lambda _: 9.0, lambda _: 0.01, 0.001, "failed", "the discriminator's loss almost vanished"),
        (lambda _: 0.9, lambda t: math.nan if t == 0.5 else 1.2, 0.02, "failed", "at step 1,500 a loss was not"),
        (lambda t: math.inf if t == 1 else 1.2, lambda _: 1.2, 0.02, "failed", "at step 3,000 a loss was not"),
    ],
)
def test_losses_decide_the_state(generator: Loss, discriminator: Loss, noise: float, state: str, words: str) -> None:
    found = verdict(rows(generator, discriminator, noise=noise), "non-saturating")
    assert found["state"] == state
    assert words in found["words"]


def test_the_interval_holds_the_true_change_as_often_as_it_says() -> None:
    """Nineteen times in twenty, although neighbouring lines of the log are alike."""
    held = 0
    for seed in range(100):
        trend = verdict(rows(lambda t: 0.9 + t, lambda _: 1.2, seed=seed), "non-saturating")["generator"]
        held += trend["change_low"] < 0.33 < trend["change_high"]
    assert held >= 88


def test_the_relativistic_loss_has_its_own_chance_level() -> None:
    found = verdict(rows(lambda _: LN2, lambda _: LN2, noise=0.001), "relativistic")
    assert found["discriminator"]["chance"] == pytest.approx(LN2)
    assert "with the middle of its logits as the threshold" in found["words"]


@pytest.mark.parametrize("lines", [0, 1, 60])
def test_a_short_run_is_not_judged(lines: int) -> None:
    found = verdict(rows(lambda _: 0.9, lambda _: 1.2, lines=lines), "non-saturating")
    assert (found["state"], "generator" in found) == ("unclear", False)
    assert "The run is too short" in found["words"]
