"""A training job from its options to its exported models: what ``digitgan train`` does."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from training import data
from training.config import CONFIG_FILE, DEFAULT_PRESET, PRESETS, ConfigError, Recipe, TrainingConfig
from training.run.metrics import MetricsLog


@dataclass(frozen=True)
class Options:
    """What the caller asks for. None means: not said, so the preset's or the resumed run's value stands.

    Attributes:
        run: the run directory.
        resume: go on from the run's last checkpoint if it has one.
        data: path of MNIST-like data, or None for Keras's download.
        preset: a name in training.config.PRESETS.
        epochs: length in passes over the training set.
        steps: length in steps; at most one of the two.
        overrides: fields of Recipe and TrainingConfig, by name.
    """

    run: Path
    resume: bool
    data: Path | None
    preset: str | None
    epochs: float | None
    steps: int | None
    overrides: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_EPOCHS = 40.0


def resolve(options: Options) -> tuple[TrainingConfig, data.Dataset]:
    """Loads the data and decides every setting of the run.

    Raises:
        ConfigError: the options contradict each other, or the run that they would resume.
        data.DataError: the data can't be had or isn't MNIST-like.
    """
    if options.epochs is not None and options.steps is not None:
        raise ConfigError("--epochs and --steps both say how long to train: give one of them")
    if options.preset is not None and options.preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, not {options.preset}")
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps must be at least 1, not {options.steps}")
    if options.epochs is not None and not options.epochs > 0:
        raise ConfigError(f"--epochs must be positive, not {options.epochs}")
    in_recipe = {each.name for each in fields(Recipe)}
    recipe = {name: value for name, value in options.overrides.items() if name in in_recipe}
    settings = {name: value for name, value in options.overrides.items() if name not in in_recipe}
    preset = options.preset or DEFAULT_PRESET
    chosen = replace(PRESETS[preset], **recipe)  # it checks the values
    begun = (options.run / CONFIG_FILE).exists()
    if begun and not options.resume:
        raise ConfigError(f"{options.run} holds a run already: add --resume to go on with it, or choose another --run")
    stored = TrainingConfig.read(options.run) if begun else None
    path = options.data.resolve() if options.data else None  # A run may be resumed from elsewhere.
    if stored and path is None and stored.data != "keras":
        path = Path(stored.data)
    dataset = data.load(path)
    if stored:
        config = stored
        _refuse_changes(stored, options)
    else:
        config = TrainingConfig(
            preset=preset,
            recipe=chosen,
            steps=1,
            images=len(dataset.training),
            data=dataset.source,
            data_sha256=dataset.fingerprint(),
            **{"seed": 0, **settings},
        )
    if options.steps is not None:
        return config.lengthened(options.steps), dataset
    if options.epochs is not None or not stored:
        epochs = DEFAULT_EPOCHS if options.epochs is None else options.epochs
        return config.lengthened(config.step_of_epoch(epochs)), dataset
    return config, dataset


def _refuse_changes(stored: TrainingConfig, options: Options) -> None:
    """Raises ConfigError for a setting that the resumed run does not have. Only its length may change."""
    given = {**({"preset": options.preset} if options.preset else {}), **options.overrides}
    known = {**asdict(stored), **asdict(stored.recipe)}
    for name, value in given.items():
        if known[name] != value:
            raise ConfigError(
                f"{name} {value}: the run that --resume continues has {known[name]}; leave it out, or begin a new run"
            )


def describe(config: TrainingConfig) -> str:
    """The resolved configuration as it is printed and stored."""
    return json.dumps(asdict(config), indent=2)


def default_run(preset: str) -> Path:
    """A new run directory's name, below ``runs`` in the current directory."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{preset}"


def card_facts(config: TrainingConfig, run: Path, step: int) -> dict[str, Any]:
    """What the model cards tell about a run: how it was trained, on what, and how it stood at the end.

    ``last_interval`` is the last line of the log: both losses and the discriminator's accuracy, which show whether
    the two were in balance, not how good the digits are.
    """
    import tensorflow as tf

    from training.devices import describe as describe_device

    rows = MetricsLog.rows(run)
    return {
        "training": {
            **asdict(config),
            "data": "MNIST by Keras's loader" if config.data == "keras" else Path(config.data).name,
            "steps": step,
            "epochs": round(config.epochs_at(step), 2),
            "tensorflow": tf.__version__,
            "device": describe_device(),
        },
        "last_interval": rows[-1] if rows else None,
    }
