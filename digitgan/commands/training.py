"""``digitgan train``, and what is made of a run: ``evaluate``, ``report``, ``export``, and ``train-classifier``."""

import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from digitgan.commands import GROUP_OPTIONS, command
from digitgan.errors import require
from serving.errors import UserError
from serving.versions.model_card import CardError

if TYPE_CHECKING:
    from training.config import TrainingConfig
    from training.data import Dataset

app: Final = typer.Typer(**GROUP_OPTIONS)

DataOption = Annotated[
    Path | None,
    typer.Option(
        envvar="DIGITGAN_DATA",
        help="An .npz in the layout of Keras's mnist.npz, or a folder with MNIST's four IDX .gz files. "
        "Default: Keras downloads MNIST.",
    ),
]
ClassifierOption = Annotated[
    Path | None,
    typer.Option(
        help="A base directory with the classifier that measures and labels digits: DIR/classifier/<version>. Default: "
        "the run's. A run on MNIST has the package's; on other data, one that is trained first."
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Root of all random numbers. Default: 0.", min=0, max=2**31 - 1)]
PrecisionOption = Annotated[
    bool | None,
    typer.Option("--mixed-precision/--float32", help="Compute in bfloat16, keep weights in float32. Default: float32."),
]
MountPointOption = Annotated[
    Path, typer.Option(help="The base directory as TensorFlow Serving will see it, for models.config.")
]
ModelsOption = Annotated[
    Path | None, typer.Option(help="Base directory to publish the model versions in. Default: RUN/models.")
]
IndexSeedsOption = Annotated[int | None, typer.Option(min=1, help="Seeds in the index of digits. Default: 65536.")]


@command(app, "train", "Train")
def train(
    data: DataOption = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="'best': the recipe of docs/recipe.md. 'dcgan': Radford et al.'s step size and momentum, and "
            "the average of the generator's weights. 'deck': the course deck's recipe. Default: best."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training set. Default: 40.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, of one batch each; instead of --epochs.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run directory. Default: runs/TIME-PRESET.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue from the run's last checkpoint; start if there is none. Without --run: the newest in runs/.",
        ),
    ] = False,
    models: ModelsOption = None,
    mount_point: MountPointOption = Path("/models"),
    seed: SeedOption = None,
    mixed_precision: PrecisionOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Override a setting of the preset or of the run; repeat it for more. --dry-run prints all settings.",
        ),
    ] = None,
    workers_timeout: Annotated[
        float, typer.Option(help="Seconds that a worker of TF_CONFIG waits for the others.")
    ] = 600.0,
    classifier: ClassifierOption = None,
    index_seeds: IndexSeedsOption = None,
    publish: Annotated[
        bool,
        typer.Option("--export/--no-export", help="Publish the models at the end, or leave that to digitgan export."),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop there.")
    ] = False,
) -> None:
    """Train a generator and a discriminator on MNIST, and publish them.

    The run directory holds the configuration, metrics, samples, checkpoints, report.html and models/. Ctrl-C saves a
    checkpoint and stops. --resume continues, and ends with the same weights as a run that was not stopped.

    Examples:
        digitgan train --steps 1000                    a few minutes on two cores
        digitgan train --data mnist.npz --epochs 40    as the model in the package
    """
    require("training")
    from training import job
    from training.config import DEFAULT_PRESET, parse_setting

    given = {"seed": seed, "mixed_precision": mixed_precision, "classifier": classifier and str(classifier)}
    overrides = {name: value for name, value in given.items() if value is not None}
    overrides |= dict(parse_setting(text) for text in settings or [])
    named = run is not None
    run = run or (_newest_run() if resume else job.default_run(preset or DEFAULT_PRESET))
    config, dataset = job.resolve(
        run, data, resume=resume, preset=preset, epochs=epochs, steps=steps, overrides=overrides
    )
    typer.echo(config.to_json())
    if dry_run:
        return
    import_tensorflow()
    from training import devices
    from training.publish.publication import classifier_of_run
    from training.run import loop

    # What follows the last step needs no other worker: the chief may be started again when the others have ended.
    complete = loop.is_complete(config, run)
    if complete and not devices.is_chief():
        typer.echo(f"The training in {run} is complete. The first worker publishes it")
        return
    try:
        strategy = devices.strategy(complete, workers_timeout)
    except TimeoutError as error:
        sys.exit(f"digitgan: {error}")  # Status 1, for it is worth another try. Errors of the user are 2.
    typer.echo(
        f"Training on {devices.describe()}, {config.steps} steps ({config.epochs_at(config.steps):.2f} epochs), "
        f"into {run}"
    )
    measuring = classifier_of_run(run, config, dataset) if devices.is_chief() else None
    trainer, stopped_by = loop.train(config, dataset, run, strategy, measuring)
    if stopped_by:
        more = [*([] if named else ["--run", str(run)]), *([] if resume else ["--resume"])]
        typer.echo(
            f"\nStopped by {stopped_by.name}, saved at step {trainer.step} of {config.steps}. Continue with:\n"
            f"  {shlex.join(['digitgan', *sys.argv[1:], *more])}"
        )
        sys.exit(128 + stopped_by)
    if not devices.is_chief():
        return
    if publish:
        _publish(run, config, trainer, dataset, models, mount_point, index_seeds)
    report(run)


@command(app, "export", "Train")
def export(
    run: Annotated[Path, typer.Argument(help="A run directory, as digitgan train makes it.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The run's images, which the detector is trained on. Default: where the run had them from."),
    ] = None,
    models: ModelsOption = None,
    mount_point: MountPointOption = Path("/models"),
    index_seeds: IndexSeedsOption = None,
    classifier: ClassifierOption = None,
) -> None:
    """Publish a run's models as a new version: generator, discriminator and classifier.

    First the discriminator is trained further against the fixed generator, as a detector, and calibrated. The generator
    gets an index of seeds by digit, and the story of the run. Each model is saved, loaded again and compared with the
    trained network. A rename publishes it, so a model server never sees half a version.

    Examples:
        digitgan export RUN
        digitgan export RUN --models /models
    """
    require("training")
    from training import job
    from training.config import TrainingConfig

    config = TrainingConfig.read(run)
    dataset = job.data_of_run(run, config, data)
    import_tensorflow()
    from training import devices
    from training.run import loop

    trainer = loop.restore(config, run, devices.strategy())
    _publish(run, config, trainer, dataset, models, mount_point, index_seeds, classifier)


@command(app, "evaluate", "Train")
def evaluate(
    source: Annotated[Path, typer.Argument(help="A run directory, or a base directory of models.")],
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=20, help="Number of images: seeds 0, 1, 2, …")] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option(help="Where evaluation.json and report.html go. Default: the run directory, else ./evaluation."),
    ] = None,
    classifier: ClassifierOption = None,
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
    import_tensorflow()
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
    written = page.report(target, opened.run, measuring.probabilities)
    Console(highlight=False).print(_table(evaluation))
    try:
        updated = job.update_card(opened.version_dir, evaluation)
        outcome = "has these figures now" if updated else "keeps an evaluation of more images"
        typer.echo(f"The model card of {opened.version_dir} {outcome}.")
    except (CardError, OSError) as error:
        typer.echo(f"The model card of {opened.version_dir} was not changed: {error}", err=True)
    typer.echo(f"{time.monotonic() - started:.0f} seconds. The report: {written}")


@command(app, "report", "Train")
def report(
    run: Annotated[Path, typer.Argument(help="A run directory of digitgan train; it may still be training.")],
) -> None:
    """Write the report of a run: report.html in the run, one page that needs no other file.

    It shows the same seeds at every milestone, both losses and whether they were stable, and the figures during the
    run. After digitgan evaluate it also shows the final figures beside those of real images, samples of each digit,
    interpolations, the nearest training images, and how good the discriminator's score is.

    Examples:
        digitgan report runs/first    also while it trains
        digitgan report runs/20261127-081500-best
    """
    require("training")
    from training import job
    from training.config import TrainingConfig

    config = TrainingConfig.read(run)
    import_tensorflow()
    from training.evaluation.classifier import newest_classifier
    from training.report import page

    classify = newest_classifier(job.classifiers_of(run, config)).probabilities
    typer.echo(f"The report: {page.report(run, run, classify)}")


@command(app, "train-classifier", "Train")
def train_classifier(
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.", min=1)] = 12,
    models: Annotated[Path, typer.Option(help="Base directory to publish the classifier in.")] = Path("models"),
    mount_point: MountPointOption = Path("/models"),
    seed: SeedOption = None,
    mixed_precision: PrecisionOption = None,
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

    dataset = datasets.load(data)
    import_tensorflow()
    from training import classifier, devices
    from training.publish.publication import publish_classifier

    config = classifier.ClassifierConfig(epochs=epochs, seed=seed or 0, mixed_precision=bool(mixed_precision))
    typer.echo(f"Training the classifier on {devices.describe()}, {epochs} epochs")
    version, facts = publish_classifier(config, dataset, models, mount_point)
    test = facts["test"]
    typer.echo(
        f"Published version {version} of the classifier in {models}. It classifies {test['accuracy']:.2%} of "
        f"{test['images']:,} test images correctly."
    )


def import_tensorflow() -> None:
    """Imports TensorFlow without its announcements, and prepares it to compute.

    It takes seconds: commands check their options first, so that they report a mistake at once.
    """
    from serving.quiet import quiet_tensorflow_import
    from training.bar import announce

    announce("Loading TensorFlow")
    with quiet_tensorflow_import():
        from training.devices import prepare_tensorflow

        prepare_tensorflow()  # It lists the GPUs, and TensorFlow reports on stderr what it finds.


def _table(content: Mapping[str, Any]) -> Table:
    from training.evaluation.figures import MEASURES
    from training.report import criteria

    table = Table(
        *("", "here", "reference", "target (× reference)"),
        title=f"{content['images']:,} images, compared with the {content['compared_with']} images",
    )
    for each in MEASURES:
        mark = {True: " ✓", False: " ✗", None: ""}[criteria.met(each, content)]
        here, reference = (criteria.shown(each, content, of) for of in ("figures", "reference"))
        table.add_row(each.name, here, reference, criteria.target(each) + mark)
    return table


def _publish(
    run: Path,
    config: "TrainingConfig",
    trainer: Any,
    dataset: "Dataset",
    models: Path | None,
    mount_point: Path,
    *options: Any,
) -> None:
    from training.publish.publication import publish_run

    base = models or run / "models"
    version = publish_run(run, config, trainer, dataset, base, mount_point, *options)
    typer.echo(f"Published version {version} of the models in {base}. Serve them with:")
    typer.echo(f"  digitgan up --models {base}")


def _newest_run() -> Path:
    runs = sorted(Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError("--resume: there is no run in runs/ yet; name one with --run, or leave --resume out")
    return runs[-1].parent
