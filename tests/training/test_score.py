"""The figures of a score: against closed forms, and against scores whose worth is known."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.pictures import Handwritten
from training.evaluation.calibration import calibration_error, reliability
from training.evaluation.score import auc, score_figures


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_a_score_whose_probability_is_the_truth_is_calibrated() -> None:
    """Logits of two normal distributions, N(±1, 2), have the log-likelihood ratio 1·x: sigmoid(x) is the truth."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(1, np.sqrt(2), 50_000), rng.normal(-1, np.sqrt(2), 50_000)
    logits = np.concatenate([real, fake])
    labels = np.repeat([1, 0], 50_000)
    weights = np.full(100_000, 1e-5)
    assert calibration_error(reliability(sigmoid(logits), labels, weights)) < 0.005
    assert calibration_error(reliability(sigmoid(3 * logits), labels, weights)) > 0.1
    # The area under the curve of two normal distributions: Phi(difference of means / sqrt(2 · variance)) = Phi(1).
    assert auc(real, fake) == pytest.approx(0.8413, abs=0.005)


def test_the_calibration_error_by_hand() -> None:
    points = reliability(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 0, 0]), np.full(4, 0.25))
    assert [(point["probability"], point["share_true"], point["images"]) for point in points] == [
        (pytest.approx(0.1), 0, 2),
        (pytest.approx(0.9), 0.5, 2),
    ]
    assert calibration_error(points) == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
    assert [point["images"] for point in reliability(np.array([0.0, 1.0]), np.array([0, 1]))] == [1, 1]


def by_brightness(images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Real digits are dark: a score that knows that and nothing else."""
    logits = 10 - images.mean((1, 2), dtype=np.float64) / 5
    return logits, sigmoid(logits)


def test_the_figures_of_a_simple_score(handwritten: Handwritten) -> None:
    images, _ = handwritten
    real, fake = images[:300], 255 - images[300:1000]
    figures = score_figures(by_brightness, real, fake)
    assert figures["images"] == {"real": 300, "fake": 700}
    assert figures["auc"] == figures["kinds"]["inverted"] == figures["kinds"]["noise"] == 1
    assert figures["kinds"]["shuffled"] == figures["kinds"]["mirrored"] == pytest.approx(0.5)
    real_right = (by_brightness(real)[1] > 0.5).mean()
    fake_right = (by_brightness(fake)[1] <= 0.5).mean()
    assert figures["accuracy"] == pytest.approx((real_right + fake_right) / 2), "each side counts half"
    assert len(figures["logits"]["edges"]) == len(figures["logits"]["real"]) + 1
    assert (sum(figures["logits"]["real"]), sum(figures["logits"]["fake"])) == (300, 700)
    assert json.loads(json.dumps(figures)) == figures == score_figures(by_brightness, real, fake)


def test_a_score_that_is_not_finite_is_refused(handwritten: Handwritten) -> None:
    images, _ = handwritten
    nothing = np.full(9, np.nan)
    with pytest.raises(ValueError, match="not finite"):
        score_figures(lambda images: (nothing, nothing), images[:9], images[9:18])
