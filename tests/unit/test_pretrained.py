"""What ships is what was trained: whole, and as long as it says."""

import pytest

from serving.contract import MODELS
from serving.model_card import read_card, verify
from serving.pretrained import MODELS_DIR


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card(name: str) -> None:
    version = MODELS_DIR / name / "1"
    verify(version)
    named = set(read_card(version)["files"]) | {"model.json"}
    assert {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()} == named


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_models_were_trained_on_all_of_mnist_for_30_epochs(name: str) -> None:
    training = read_card(MODELS_DIR / name / "1")["training"]
    assert training["images"] == 60_000
    assert training["epochs"] >= 30
