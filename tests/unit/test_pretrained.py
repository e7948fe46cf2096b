"""What ships is what was trained: whole, and as long as it says."""

import pytest

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, MODELS
from serving.model_card import read_card, verify
from serving.pretrained import MODELS_DIR


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card(name: str) -> None:
    version = MODELS_DIR / name / "1"
    verify(version)
    named = set(read_card(version)["files"]) | {"model.json"}
    assert {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()} == named


def test_the_shipped_classifier_reads_mnists_test_images() -> None:
    card = read_card(MODELS_DIR / CLASSIFIER / "1")
    assert card["training"]["images"] == 55_000
    assert card["test"]["images"] == 10_000
    assert card["test"]["accuracy"] > 0.994
    assert card["test"]["expected_calibration_error"] < 0.01


@pytest.mark.parametrize("name", [GENERATOR, DISCRIMINATOR])
def test_the_shipped_models_were_trained_on_all_of_mnist_for_30_epochs(name: str) -> None:
    training = read_card(MODELS_DIR / name / "1")["training"]
    assert training["images"] == 60_000
    assert training["epochs"] >= 30
