"""``digitgan train-classifier`` and ``digitgan evaluate``."""

from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from digitgan.errors import require, told
from digitgan.training_commands import MountPointOption, import_tensorflow

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="An .npz as Keras lays MNIST out, or a folder with MNIST's four IDX .gz files. "
        "Default: Keras downloads MNIST.",
    ),
]


def train_classifier(
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 12,
    models: Annotated[Path, typer.Option(help="Base directory to publish the classifier in.")] = Path("models"),
    mount_point: MountPointOption = "/models",
    seed: Annotated[int, typer.Option(help="Root of weights, order, augmentation and dropout.")] = 0,
    mixed_precision: Annotated[
        bool,
        typer.Option("--mixed-precision/--float32", help="Compute in bfloat16, keep weights in float32."),
    ] = False,
) -> None:
    """Train the classifier that labels digits, and publish it as a new version.

    The package holds one already: train another to label other digits, or to see how it is done. It holds out the last
    5,000 training images for its calibration, and meets the test images once, at the end, for the model card.
    """
    require("training", "tensorflow", "scipy")
    import_tensorflow()
    from serving.contract import CLASSIFIER
    from training import classifier, devices
    from training import data as datasets
    from training.config import ConfigError
    from training.export import ExportError, export

    with told(ConfigError, datasets.DataError, ExportError):
        config = classifier.ClassifierConfig(epochs=epochs, seed=seed, mixed_precision=mixed_precision)
        dataset = datasets.load(data.resolve() if data else None)
        devices.strategy()
        typer.echo(f"Training the classifier on {devices.describe()}, {epochs} epochs")
        network = classifier.train_classifier(config, dataset)
        facts = classifier.classifier_facts(config, dataset, network)
        version = export({CLASSIFIER: network}, models, facts, PurePosixPath(mount_point))
    test = facts["test"]
    typer.echo(
        f"Published version {version} of the classifier in {models}. It reads {test['accuracy']:.2%} of "
        f"{test['images']:,} test images rightly."
    )
