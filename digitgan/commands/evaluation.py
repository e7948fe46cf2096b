"""``digitgan evaluate``, ``digitgan report``, ``digitgan train-classifier``, and what ``digitgan train`` shares."""

import json
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from digitgan.errors import require
from serving.quiet import quiet_tensorflow_import

DataOption = Annotated[
    Path | None,
    typer.Option(
        envvar="DIGITGAN_DATA",
        help="An .npz in the layout of Keras's mnist.npz, or a folder with MNIST's four IDX .gz files. "
        "Default: Keras downloads MNIST.",
    ),
]
MountPointOption = Annotated[
    str,
    typer.Option("--mount-point", help="The base directory as TensorFlow Serving will see it, for models.config."),
]


def import_tensorflow() -> None:
    """Imports TensorFlow without its announcements, and prepares it to compute."""
    from training.bar import announce

    announce("Loading TensorFlow")
    with quiet_tensorflow_import():
        from training.devices import prepare_tensorflow

        prepare_tensorflow()  # It lists the GPUs, and TensorFlow reports on stderr what it finds.


def train_classifier(
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.", min=1)] = 12,
    models: Annotated[Path, typer.Option(help="Base directory to publish the classifier in.")] = Path("models"),
    mount_point: MountPointOption = "/models",
    seed: Annotated[
        int, typer.Option(help="Root of weights, order, augmentation and dropout.", min=0, max=2**31 - 1)
    ] = 0,
    mixed_precision: Annotated[
        bool,
        typer.Option("--mixed-precision/--float32", help="Compute in bfloat16, keep weights in float32."),
    ] = False,
) -> None:
    """Train the classifier that labels digits, and publish it as a new version.

    The package has a trained classifier. Part of the training images is held out to calibrate the new one. The test
    images are used once, at the end, for the model card.

    Examples:
        digitgan train-classifier --data mnist.npz
        digitgan train-classifier --data letters.npz --models models
    """
    require("training")
    from training import data as datasets

    dataset = datasets.load(data.resolve() if data else None)
    import_tensorflow()  # only now: a mistake in an option is reported at once
    from training import classifier, devices
    from training.publish.publication import publish_classifier

    config = classifier.ClassifierConfig(epochs=epochs, seed=seed, mixed_precision=mixed_precision)
    typer.echo(f"Training the classifier on {devices.describe()}, {epochs} epochs")
    version, facts = publish_classifier(config, dataset, models, PurePosixPath(mount_point))
    test = facts["test"]
    typer.echo(
        f"Published version {version} of the classifier in {models}. It classifies {test['accuracy']:.2%} of "
        f"{test['images']:,} test images correctly."
    )


def evaluate(
    source: Annotated[Path, typer.Argument(help="A run directory, or a base directory of models.")],
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=20, help="Number of images: seeds 0, 1, 2, …")] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option(help="Where evaluation.json and report.html go. Default: the run directory, else ./evaluation."),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(help="A base directory with another classifier to measure by: DIR/classifier/<version>."),
    ] = None,
) -> None:
    """Measure how good generated digits are, beside real images.

    Each figure stands beside the reference: the same figure of real images. The figures are written into
    evaluation.json, report.html and the generator's model card. docs/quality.md explains them.

    A run is measured on its own data by its own classifier. A base directory of models is measured by the classifier in
    it, or else by the package's; that has to be trained on the same data, if --classifier does not name it.

    Examples:
        digitgan evaluate RUN                   the newest models of a run
        digitgan evaluate serving/pretrained    the models in the package
    """
    require("training")
    from training import job as training_job
    from training.evaluation.source import Source, find_generator

    started = time.monotonic()
    find_generator(source)
    dataset, classifiers = training_job.data_and_classifiers(source, data, classifier)
    import_tensorflow()  # only now: a mistake in an option is reported at once
    from serving.files import write_atomically
    from training.evaluation import job
    from training.evaluation.classifier import newest_classifier
    from training.report import page
    from training.report.pictures import choose

    opened = Source(source)
    measuring = newest_classifier(classifiers)
    evaluation, generated, measured = job.evaluate(opened, dataset, measuring, images)
    target = out or opened.run or Path("evaluation")
    target.mkdir(parents=True, exist_ok=True)
    pictures = choose(generated, measured, dataset.x_train, opened.generate)
    write_atomically(target / page.EVALUATION_FILE, json.dumps(evaluation, indent=2) + "\n")
    write_atomically(target / page.PICTURES_FILE, json.dumps(pictures) + "\n")
    written = page.report(target, target, opened.run, measuring.probabilities)
    Console(highlight=False).print(_table(evaluation))
    if score := evaluation["score"]:
        typer.echo(
            f"The discriminator: area under the curve {score['auc']:.4f}, accuracy {score['accuracy']:.2%}, "
            f"expected calibration error {score['expected_calibration_error']:.4f}"
        )
    _update_card(opened.version_dir, evaluation)
    typer.echo(f"{time.monotonic() - started:.0f} seconds. The report: {written}")


def _table(content: Mapping[str, Any]) -> Table:
    from training.evaluation.figures import MEASURES
    from training.report import criteria

    table = Table(
        Column("", no_wrap=True),
        *(Column(name, no_wrap=True) for name in ("here", "reference", "target (× reference)")),
        title=f"{content['images']:,} images, compared with the {content['compared_with']} images",
    )
    for each in MEASURES:
        mark = {True: " ✓", False: " ✗", None: ""}[criteria.met(each, content)]
        here, reference = (criteria.shown(each, content, of) for of in ("figures", "reference"))
        table.add_row(each.name, here, reference, criteria.target(each) + mark)
    return table


def _update_card(version_dir: Path, content: dict[str, Any]) -> None:
    from serving.versions.model_card import CardError
    from training.evaluation import job

    try:
        if job.update_card(version_dir, content):
            typer.echo(f"The model card of {version_dir} has these figures now.")
        else:
            typer.echo(f"The model card of {version_dir} keeps an evaluation of more images.")
    except (CardError, OSError) as error:
        typer.echo(f"The model card of {version_dir} was not changed: {error}", err=True)


def report(
    run: Annotated[Path, typer.Argument(help="A run directory of digitgan train; it may still be training.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write report.html into. Default: the run.")] = None,
) -> None:
    """Write the report of a run: report.html, one page that needs no other file.

    It shows the same seeds at every milestone, both losses and whether they were stable, and the figures during the
    run. After digitgan evaluate it also shows the final figures beside those of real images, samples of each digit,
    interpolations, the nearest training images, and how good the discriminator's score is.

    Examples:
        digitgan report RUN
        digitgan report RUN --out public/
    """
    require("training")
    from training import job
    from training.config import TrainingConfig

    config = TrainingConfig.read(run)
    import_tensorflow()
    from training.evaluation.classifier import ClassifierError, newest_classifier
    from training.report import page

    try:
        classify = newest_classifier(job.classifiers_of(run, config)).probabilities
    except ClassifierError as error:
        classify = None
        typer.echo(f"The stages of the run have no names: {error}", err=True)
    target = out or run
    target.mkdir(parents=True, exist_ok=True)
    typer.echo(f"The report: {page.report(target, run, run, classify)}")
