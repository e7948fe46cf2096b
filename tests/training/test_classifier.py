"""The classifier learns to read, the same way each time, and what is published is what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.contract import CLASSIFIER
from serving.errors import UserError
from serving.versions.model_card import read_card, verify
from tests.support.commands import assert_float32, digitgan_here
from tests.support.pictures import Handwritten, save_npz
from tests.training.test_export import assert_follows_contract
from training.classifier import ClassifierConfig, train_classifier
from training.data import Dataset, load
from training.evaluation.calibration import calibration_error, reliability
from training.evaluation.classifier import newest_classifier

IMAGES, EPOCHS = 480, 4


@pytest.fixture(scope="module")
def digits(handwritten: Handwritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few digits, so that a training is short."""
    return save_npz(tmp_path_factory.mktemp("data") / "digits.npz", handwritten, IMAGES)


@pytest.fixture(scope="module")
def dataset(digits: Path) -> Dataset:
    return load(digits)


@pytest.fixture(scope="module")
def published(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    options = ("--epochs", str(EPOCHS), "--models", models, "--seed", "3")
    done = digitgan_here("train-classifier", "--data", digits, *options)
    assert "Published version 1 of the classifier" in done.stdout
    assert_float32()
    return models


def test_it_reads_digits_that_it_has_never_met(published: Path, dataset: Dataset) -> None:
    features, probabilities = newest_classifier(published).predict(dataset.x_test)
    assert features.shape == (297, 128)
    assert features.min() >= 0
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    accuracy = (probabilities.argmax(1) == dataset.y_test).mean()
    assert accuracy > 0.6
    version = published / CLASSIFIER / "1"
    verify(version)
    test, training = (read_card(version)[part] for part in ("test", "training"))
    assert (test["images"], test["accuracy"]) == (297, pytest.approx(accuracy))
    confidence, right = probabilities.max(1), probabilities.argmax(1) == dataset.y_test
    error = calibration_error(reliability(confidence, right))  # tests/training/test_score.py has it by hand
    assert test["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
    assert test["legible"] == pytest.approx((confidence >= 0.99).mean())
    assert (training["epochs"], training["seed"], training["data"]) == (EPOCHS, 3, "digits.npz")
    assert (training["images"], training["validation_images"]) == (IMAGES * 11 // 12, IMAGES // 12)
    assert (published / "models.config").read_text().count('name: "classifier"') == 1


def test_it_follows_the_contract_and_the_weights_are_saved_once(published: Path) -> None:
    version = published / CLASSIFIER / "1"
    assert_follows_contract(CLASSIFIER, version)
    assert (version / "saved_model.pb").stat().st_size < 1.5 * 4 * read_card(version)["training"]["parameters"]


def test_the_same_seed_gives_the_same_weights(dataset: Dataset) -> None:
    few = replace(dataset, x_train=dataset.x_train[:60], y_train=dataset.y_train[:60])
    first, again = (train_classifier(ClassifierConfig(epochs=1, seed=1), few) for _ in range(2))
    for weights, same in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, same)


def test_a_place_without_a_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no version of a classifier; run digitgan train-classifier"):
        newest_classifier(tmp_path)
    (tmp_path / CLASSIFIER / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no classifier"):
        newest_classifier(tmp_path)
