"""``digitgan report``."""

from pathlib import Path
from typing import Annotated

import typer

from digitgan.commands.heavy_import import import_tensorflow
from digitgan.errors import require


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
    from training.report.page import report as write

    try:
        classify = newest_classifier(job.classifiers_of(run, config)).probabilities
    except ClassifierError as error:
        classify = None
        typer.echo(f"The stages of the run have no names: {error}", err=True)
    target = out or run
    target.mkdir(parents=True, exist_ok=True)
    typer.echo(f"The report: {write(target, run, run, classify)}")
