"""``digitgan evaluate``."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from digitgan.commands import GROUP_OPTIONS, command
from digitgan.commands.training import ClassifierOption, DataOption, import_tensorflow
from digitgan.errors import require

app: Final = typer.Typer(**GROUP_OPTIONS)


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
    written = page.report(target, opened.run, measuring.probabilities)
    Console(highlight=False).print(_table(evaluation))
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
