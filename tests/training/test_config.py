"""Settings are decided once, refused when impossible, and come back from disk as they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.support.pretrained import pretrained
from training import job
from training.config import PRESETS, ConfigError, TrainingConfig

DECK = PRESETS["deck"]
CONFIG = TrainingConfig("deck", DECK, seed=0, steps=1000, images=60_000, data="keras", data_sha256="0" * 64)


def test_an_epoch_is_one_pass_over_the_training_set() -> None:
    """60,000 images in batches of 256 are 234.375 steps."""
    assert CONFIG.step_of_epoch(1) == 235
    assert CONFIG.step_of_epoch(8) == 1875
    assert CONFIG.epochs_at(1875) == 8


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {}}', '{"recipe": 3}'])
def test_a_directory_without_a_readable_run_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        TrainingConfig.read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (DECK, "batch_size", 1),
        (DECK, "generator_learning_rate", 0.0),
        (DECK, "discriminator_learning_rate", float("nan")),
        (DECK, "beta_1", 1.0),
        (DECK, "beta_2", -0.1),
        (DECK, "final_learning_rate", 1.1),
        (DECK, "loss", "hinge"),
        (DECK, "gradient_penalty", float("inf")),
        (DECK, "feature_weight", -1.0),
        (DECK, "feature_penalty", -1.0),
        (DECK, "dropout", -0.1),
        (DECK, "ema_decay", 1.5),
        (CONFIG, "steps", 0),
        (CONFIG, "log_every", 0),
        (CONFIG, "checkpoint_every", -1),
        (CONFIG, "seed", 2**31),
        (CONFIG, "evaluate_every", -1),
    ],
)
def test_an_impossible_setting_names_its_field(settings: Any, field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be .*, not {value}"):
        replace(settings, **{field: value})


def test_a_run_is_not_overwritten_and_a_resumed_one_may_only_grow_longer(tmp_path: Path, digits_npz: Path) -> None:
    begun, _ = job.resolve(tmp_path, digits_npz, preset="deck", steps=7, overrides={"seed": 3})
    begun.write(tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        job.resolve(tmp_path, digits_npz)
    resumed, _ = job.resolve(tmp_path, None, resume=True)
    assert resumed == begun
    longer, _ = job.resolve(tmp_path, digits_npz, resume=True, steps=9, overrides={"seed": 3})
    assert longer == replace(begun, steps=9)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"overrides": {"seed": 4}}, "seed 4"),
        ({"overrides": {"beta_1": 0.5}}, "beta_1 0.5"),
        ({"overrides": {"classifier": "elsewhere"}}, "elsewhere: the run that --resume continues has own"),
        ({"preset": "dcgan"}, "preset dcgan"),
    ]
    for change, named in changes:
        with pytest.raises(ConfigError, match=named):
            job.resolve(tmp_path, digits_npz, resume=True, **change)


def test_a_run_names_its_hold_out_and_an_older_one_has_the_last_images(tmp_path: Path, digits_npz: Path) -> None:
    begun, dataset = job.resolve(tmp_path, digits_npz)
    assert begun.hold_out == dataset.hold_out == "stratified"
    begun.write(tmp_path)
    older = json.loads((tmp_path / "config.json").read_text())
    del older["hold_out"], older["classifier"]
    older["recipe"]["feature_critics"] = older["recipe"].pop("feature_weight")
    (tmp_path / "config.json").write_text(json.dumps(older))
    resumed, dataset = job.resolve(tmp_path, None, resume=True)
    assert resumed == replace(begun, hold_out="last", classifier="package")
    np.testing.assert_array_equal(dataset.validation[0], dataset.x_train[-125:])
    np.testing.assert_array_equal(dataset.training[1], dataset.y_train[:-125])


def test_other_data_than_mnist_has_a_classifier_of_its_own(tmp_path: Path, digits_npz: Path) -> None:
    """The package's classifier measures a run on the images that it was trained on."""
    own, _ = job.resolve(tmp_path, digits_npz)
    assert (own.classifier, job.classifiers_of(tmp_path, own)) == ("own", tmp_path / "classifier")
    named, _ = job.resolve(tmp_path, digits_npz, overrides={"classifier": "mine"})
    assert job.classifiers_of(tmp_path, named) == Path("mine").resolve()
    assert job.learned_from(MODELS_DIR) == read_card(pretrained("generator"))["training"]["data_sha256"]
    assert job.classifiers_of(tmp_path, replace(own, classifier="package")) == MODELS_DIR


def test_an_evaluation_has_the_data_and_the_classifier_of_the_run(tmp_path: Path, digits_npz: Path) -> None:
    config, _ = job.resolve(tmp_path, digits_npz)
    config.write(tmp_path)
    dataset, classifiers = job.data_and_classifiers(tmp_path, None, None)
    assert (dataset.source, classifiers) == (str(digits_npz), tmp_path / "classifier")
    assert job.data_and_classifiers(tmp_path, digits_npz, MODELS_DIR)[1] == MODELS_DIR
    replace(config, data_sha256="").write(tmp_path)
    with pytest.raises(ConfigError, match="holds other training images than"):
        job.data_and_classifiers(tmp_path, digits_npz, None)
    with pytest.raises(ConfigError, match=r"was not trained on .* name one that was with --classifier"):
        job.data_and_classifiers(MODELS_DIR, digits_npz, None)
    assert job.data_and_classifiers(MODELS_DIR, digits_npz, MODELS_DIR)[1] == MODELS_DIR
