"""The figures of a score, computed by hand and for scores of known quality; and its negative examples."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from tests.support.pictures import Handwritten
from training.evaluation.calibration import calibration_error, reliability
from training.evaluation.negative_examples import NEGATIVE_EXAMPLES, TURNS, mixed
from training.evaluation.score import score_figures


def test_the_calibration_error_by_hand() -> None:
    probabilities, weights = np.array([0.92, 0.88, 0.1, 0.1]), np.array([0.1, 0.3, 0.4, 0.2])
    points = reliability(probabilities, np.array([1, 0, 1, 0]), weights)
    assert [list(point.values()) for point in points] == [
        pytest.approx([0.1, 0.4 / 0.6, 0.6, 2]),
        pytest.approx([0.89, 0.1 / 0.4, 0.4, 2]),
    ]
    assert calibration_error(points) == pytest.approx(0.6 * (0.4 / 0.6 - 0.1) + 0.4 * (0.89 - 0.25))
    assert [point["images"] for point in reliability(np.array([0.0, 1.0]), np.array([0, 1]))] == [1, 1]


def by_brightness(images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Real digits are dark: a score that knows that and nothing else."""
    logits = 10 - images.mean((1, 2), dtype=np.float64) / 5
    return logits, expit(logits)


def test_the_figures_of_a_simple_score(handwritten: Handwritten) -> None:
    images, _ = handwritten
    real, fake = images[:300], 255 - images[300:1000]
    figures = score_figures(by_brightness, real, fake)
    assert figures["images"] == {"real": 300, "fake": 700}
    assert figures["auc"] == figures["kinds"]["inverted"] == figures["kinds"]["noise"] == 1
    assert figures["kinds"]["shuffled"] == figures["kinds"]["mirrored"] == pytest.approx(0.5)
    real_right = (by_brightness(real)[1] > 0.5).mean()
    fake_right = (by_brightness(fake)[1] <= 0.5).mean()
    assert figures["expected_calibration_error"] < 0.1
    assert figures["accuracy"] == pytest.approx((real_right + fake_right) / 2), "each side counts half"
    assert len(figures["logits"]["edges"]) == len(figures["logits"]["real"]) + 1
    assert (sum(figures["logits"]["real"]), sum(figures["logits"]["fake"])) == (300, 700)
    assert json.loads(json.dumps(figures)) == figures == score_figures(by_brightness, real, fake)


def test_a_score_that_is_not_finite_is_refused(handwritten: Handwritten) -> None:
    images, nothing = handwritten[0], np.full(9, np.nan)
    with pytest.raises(ValueError, match="not finite"):
        score_figures(lambda images: (nothing, nothing), images[:9], images[9:18])


def test_the_kinds_are_what_their_names_say(handwritten: Handwritten) -> None:
    images = handwritten[0][:80]
    made = {name: make(images, np.random.default_rng(0)) for name, make in NEGATIVE_EXAMPLES.items()}
    for name, others in made.items():
        assert (others.shape, others.dtype) == (images.shape, images.dtype), name
        assert not (others == images).all((1, 2)).any() or name in ("mirrored", "upside_down"), name
    assert {0, 255} < set(made["blank"][:, 0, 0].tolist())
    assert (np.sort(made["shuffled"].reshape(80, -1)) == np.sort(images.reshape(80, -1))).all()
    assert (made["mirrored"][0] == images[0, :, ::-1]).all()
    assert (made["upside_down"][0] == images[0, ::-1]).all()
    for image, moved in zip(images, made["shifted"], strict=True):
        assert any(
            (np.pad(image, 8)[8 - down :, 8 - right :][:28, :28] == moved).all()
            for down in range(-8, 9)
            for right in range(-8, 9)
            if max(abs(down), abs(right)) >= 4
        )


def test_a_mixture_holds_no_real_digit(handwritten: Handwritten) -> None:
    images, labels = handwritten
    order = np.random.default_rng(1).permutation(len(images))
    made = mixed(images[order], labels[order], np.random.default_rng(0))
    assert (made.shape, made.dtype) == (images.shape, images.dtype)
    known = {image.tobytes() for image in images}
    same = [position for position, image in enumerate(made) if image.tobytes() in known]
    assert len(same) < 10, "only a mixture of two digits may be a digit, by chance"
    assert {TURNS[position % len(TURNS)] for position in same} <= {"overlaid", "half_and_half"}
    upside_down = {image[::-1].tobytes() for image in images}
    assert 0.1 < np.mean([image.tobytes() in upside_down for image in made]) < 0.2
    np.testing.assert_array_equal(made, mixed(images[order], labels[order], np.random.default_rng(0)))
    assert mixed(images[:3], labels[:3], np.random.default_rng(0)).shape == (3, 28, 28)
