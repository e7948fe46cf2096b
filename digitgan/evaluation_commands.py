"""``digitgan train-classifier`` and ``digitgan evaluate``."""

import json
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from digitgan.errors import require, told
from digitgan.training_commands import DataOption, MountPointOption, import_tensorflow


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


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run directory, a base directory of models, or a gateway's address, such as http://127.0.0.1:8000."
        ),
    ],
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=20, help="How many images to make: the seeds 0, 1, 2, …")] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option(help="Where evaluation.json and report.html go. Default: the run directory, else ./evaluation."),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(help="A base directory with another classifier than the package's own: DIR/classifier/<version>."),
    ] = None,
) -> None:
    """Measure how good generated digits are, against MNIST's test images.

    Each figure stands beside its floor, which is what training images get, and beside what the course deck's recipe
    reached in as many steps. The figures go into evaluation.json, into a report to look at, and into the generator's
    model card where it is at hand. docs/evaluation.md tells what they mean.

    [bold]digitgan evaluate runs/…[/]                   a run's newest models, or its last checkpoint
    [bold]digitgan evaluate http://127.0.0.1:8000[/]    what a gateway serves
    """
    require("training", "tensorflow", "scipy", "sklearn", "httpx", "matplotlib", "PIL")
    import_tensorflow()
    from serving.files import write_atomically
    from serving.pretrained import MODELS_DIR
    from training import data as datasets
    from training.config import ConfigError
    from training.evaluation import job
    from training.evaluation.evaluator import EvaluationError
    from training.evaluation.features import Judge, JudgeError
    from training.evaluation.sources import SourceError, open_source
    from training.report import write_report

    started = time.monotonic()
    with told(ConfigError, datasets.DataError, EvaluationError, JudgeError, SourceError), open_source(source) as opened:
        dataset = datasets.load(data.resolve() if data else None)
        judge = Judge.newest(classifier or MODELS_DIR)
        evaluation = job.evaluate(opened, dataset, judge, images)
    target = out or opened.run or Path("evaluation")
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "evaluation.json", json.dumps(evaluation.content, indent=2) + "\n")
    evaluation.pictures.write(target)
    report = write_report(
        evaluation.content,
        target,
        run=opened.run,
        pictures=evaluation.pictures,
        classify=lambda digits: judge.look(digits)[1],
    )
    console = Console(highlight=False)
    console.print(_table(evaluation.content))
    if score := evaluation.content["score"]:
        typer.echo(
            f"The discriminator: area under the curve {score['auc']:.4f}, accuracy {score['accuracy']:.2%}, "
            f"expected calibration error {score['expected_calibration_error']:.4f}"
        )
    if opened.version_dir:
        _tell_card(opened.version_dir, evaluation)
    typer.echo(f"{time.monotonic() - started:.0f} seconds. The report: {report}")


def _table(content: Mapping[str, Any]) -> Table:
    from training.report.criteria import CRITERIA

    columns = {"here": content["figures"], "floor": content["floor"]}
    if deck := content["deck"]:
        columns[f"deck, {deck['steps']:,} steps"] = deck
    table = Table(
        Column("", no_wrap=True),
        *columns,
        Column("target", no_wrap=True),
        title=f"{content['images']:,} images against the {content['reference']} images",
    )
    for criterion in CRITERIA:
        shown = [criterion.show(figures) for figures in columns.values()]
        met = criterion.met(content["figures"], content["floor"]) if criterion.target else None
        mark = {True: " ✓", False: " ✗", None: ""}[met]
        table.add_row(criterion.name, *shown, criterion.target + mark)
    return table


def _tell_card(version_dir: Path, evaluation: Any) -> None:
    from serving.model_card import CardError
    from training.evaluation import job

    try:
        if job.tell_card(version_dir, evaluation):
            typer.echo(f"The model card of {version_dir} tells these figures now.")
        else:
            typer.echo(f"The model card of {version_dir} goes on telling an evaluation of more images.")
    except (CardError, OSError) as error:
        typer.echo(f"The model card of {version_dir} was left as it is: {error}", err=True)
