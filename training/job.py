"""The settings of a training job, decided from what the user gives."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

from serving.contract import CLASSIFIER
from serving.pretrained import MODELS_DIR
from serving.storage import newest_version
from serving.versions.model_card import find_card
from training import data
from training.config import (
    CONFIG_FILE,
    DEFAULT_PRESET,
    OWN,
    PACKAGED,
    PRESETS,
    STRATIFIED,
    ConfigError,
    Recipe,
    TrainingConfig,
)

DEFAULT_EPOCHS: Final = 40.0
OWN_CLASSIFIER: Final = "classifier"
"""The directory in a run that is the base directory of its own classifier."""


def resolve(
    run: Path,
    data_path: Path | None,
    *,
    resume: bool = False,
    preset: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[TrainingConfig, data.Dataset]:
    """Loads the data and decides every setting of the run, by ``overrides``, the resumed run, ``preset`` and defaults.

    Raises ConfigError if the settings contradict each other, or the run that they would resume; UserError if the data
    can't be loaded or isn't MNIST-like.
    """
    given = {**({} if preset is None else {"preset": preset}), **(overrides or {})}
    if epochs is not None and steps is not None:
        raise ConfigError("--epochs and --steps both say how long to train: give one of them")
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, not {preset}")
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps must be at least 1, not {steps}")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ConfigError(f"--epochs must be positive, not {epochs}")
    if given.get("classifier") not in (None, PACKAGED, OWN):
        given["classifier"] = str(Path(given["classifier"]).resolve())
    recipe = {each.name: given[each.name] for each in fields(Recipe) if each.name in given}
    chosen = replace(PRESETS[preset or DEFAULT_PRESET], **recipe)  # it checks the values
    begun = (run / CONFIG_FILE).exists()
    if begun and not resume:
        raise ConfigError(f"{run} holds a run already: add --resume to go on with it, or choose another --run")
    if begun:
        config = TrainingConfig.read(run)
        dataset = data_of_run(run, config, data_path)
        stored = {**asdict(config), **asdict(config.recipe)}
        for name, value in given.items():
            if stored[name] != value:  # Only its length may change.
                raise ConfigError(
                    f"{name} {value}: the run that --resume continues has {stored[name]}; leave it out, or begin a new "
                    "run"
                )
    else:
        dataset = data.load(data_path, given.get("hold_out", STRATIFIED))
        fingerprint = dataset.fingerprint()
        settings = {
            "preset": DEFAULT_PRESET,
            "seed": 0,
            "classifier": PACKAGED if learned_from(MODELS_DIR) == fingerprint else OWN,
            **{name: value for name, value in given.items() if name not in recipe},
        }
        config = TrainingConfig(
            recipe=chosen,
            steps=1,
            images=len(dataset.training[0]),
            data=dataset.source,
            data_sha256=fingerprint,
            **settings,
        )
    if steps is None and (epochs is not None or not begun):
        steps = config.step_of_epoch(DEFAULT_EPOCHS if epochs is None else epochs)
    return (replace(config, steps=steps) if steps else config), dataset


def data_of_run(run: Path, config: TrainingConfig, data_path: Path | None) -> data.Dataset:
    """Loads a run's images, from where it had them or from another path. Raises ConfigError if they are others."""
    recorded = None if config.data == "keras" else Path(config.data)
    dataset = data.load(data_path or recorded, config.hold_out)
    if dataset.fingerprint() != config.data_sha256:
        raise ConfigError(f"data: {dataset.source} holds other training images than {run} was trained on")
    return dataset


def classifiers_of(run: Path, config: TrainingConfig) -> Path:
    """Returns the base directory of the classifier that measures and labels a run's digits."""
    bases = {PACKAGED: MODELS_DIR, OWN: run / OWN_CLASSIFIER}
    return bases.get(config.classifier) or Path(config.classifier)


def data_and_classifiers(source: Path, data_path: Path | None, classifiers: Path | None) -> tuple[data.Dataset, Path]:
    """Returns the images, and the base directory of the classifier, that a run or a directory of models is measured by.

    By default these are the run's, or MNIST and the classifier in the directory of models, or else the package's.
    Raises ConfigError if the images are not the run's, or if no classifier is known for them.
    """
    if (source / CONFIG_FILE).is_file():
        config = TrainingConfig.read(source)
        return data_of_run(source, config, data_path), classifiers or classifiers_of(source, config)
    dataset = data.load(data_path)
    if not classifiers:
        classifiers = source if newest_version(source / CLASSIFIER) else MODELS_DIR
        if learned_from(classifiers) != dataset.fingerprint():
            raise ConfigError(
                f"the classifier in {classifiers} was not trained on {dataset.source}: name one that was with "
                "--classifier, or make one with digitgan train-classifier --data"
            )
    return dataset, classifiers


def learned_from(classifiers: Path) -> str | None:
    """Returns the fingerprint of the images that the newest classifier was trained on; None if it is not known."""
    fingerprint: str | None = find_card(newest_version(classifiers / CLASSIFIER)).get("training", {}).get("data_sha256")
    return fingerprint


def default_run(preset: str) -> Path:
    """A new run directory's name, below ``runs`` in the current directory."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{preset}"
