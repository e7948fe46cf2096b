"""The detector learns what tells generated digits from real ones, once for the same generator."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import detector
from training.data import Dataset
from training.detector import DetectorConfig, detector_of_run, train_detector
from training.evaluation import calibration
from training.evaluation.calibration import Calibration
from training.gan.networks import build_discriminator, build_generator, logits_of

QUICK = DetectorConfig(steps=24, real=24, fakes=8, earlier=8, impostors=8, learning_rate=3e-3, seed=3)


def gray(noise: Any) -> Any:
    """A generator of dim, even noise: nothing is easier to tell from digits."""
    return tf.cast(tf.reshape(tf.tile(tf.abs(noise[:, :1]) * 40 + 60, [1, 784]), [-1, 28, 28, 1]), tf.uint8)


def test_it_learns_and_is_calibrated(dataset: Dataset) -> None:
    keras.utils.set_random_seed(0)
    weights = build_discriminator(0.0).get_weights()
    network, facts = train_detector(weights, [gray, gray], dataset, QUICK)
    figures = facts["test"]
    assert figures["auc"] > 0.99
    assert figures["kinds"]["noise"] > 0.9
    assert figures["expected_calibration_error"] < 0.1
    logits = logits_of(network, dataset.x_test)[:, 0]
    assert Calibration(**facts["calibration"]).probabilities(logits).mean() > 0.8
    again, _ = train_detector(weights, [gray, gray], dataset, QUICK)
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert json.loads(json.dumps(facts)) == facts


def test_a_run_trains_its_detector_once(dataset: Dataset, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    generator, discriminator = build_generator(), build_discriminator(0.0)
    few = DetectorConfig(steps=2, real=8, fakes=4, earlier=2, impostors=2)
    small = Dataset("here", dataset.x_train[:240], dataset.y_train[:240], dataset.x_test[:50], dataset.y_test[:50])
    given = (discriminator, [generator], small, few)
    network, facts = detector_of_run(tmp_path, "step-6-2", *given)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / detector.DIRECTORY).iterdir()}
    assert {path.name for path in files} == {"step-6-2.npz", "step-6-2.json"}
    again, same_facts = detector_of_run(tmp_path, "step-6-2", *given)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / detector.DIRECTORY).iterdir()}
    assert same_facts == facts
    np.testing.assert_array_equal(logits_of(again, small.x_test), logits_of(network, small.x_test))


def test_calibration_finds_the_truth() -> None:
    """Normal distributions N(±m, s²) in equal parts have the log-odds 2·m/s² · x; few fakes count as much."""
    rng = np.random.default_rng(0)
    shifted = 0.7  # Moves the logits, and so the offset.
    fitted = calibration.fit(rng.normal(1, 2, 80_000) + shifted, rng.normal(-1, 2, 20_000) + shifted)
    assert fitted.slope == pytest.approx(0.5, abs=0.02)
    assert fitted.offset == pytest.approx(-0.5 * shifted, abs=0.03)


def test_calibration_of_extremes() -> None:
    apart = calibration.fit(np.full(50, 9.0), np.full(50, -9.0))
    assert 0 < apart.slope < 2, "Platt's targets keep it finite"
    assert apart.probabilities(np.array([9.0])) == pytest.approx(51 / 52, abs=0.01)
    assert calibration.fit(np.full(50, -1.0), np.full(50, 1.0)) == Calibration(0.0, 0.0)
    assert calibration.fit(np.zeros(50), np.zeros(50)).probabilities(np.zeros(1)) == pytest.approx(0.5)
