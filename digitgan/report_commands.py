"""``digitgan report``."""

from pathlib import Path
from typing import Annotated

import typer

from digitgan.errors import UserError, require, told
from digitgan.training_commands import import_tensorflow


def report(
    run: Annotated[Path, typer.Argument(help="A run directory, as digitgan train makes it; it may be training still.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write report.html into. Default: the run.")] = None,
) -> None:
    """Tell a run's story and its figures in one page: report.html, which needs no other file.

    The same digits at every milestone as a time-lapse (story.png in the run, too), both losses and what they say, the
    figures on the way; and where digitgan evaluate was run, its figures beside their floor, digit by digit, walks
    between seeds, the nearest training images, and what the discriminator's score is worth.

    [bold]digitgan evaluate RUN[/]   measures first, and writes the report too
    """
    require("training", "tensorflow", "scipy", "sklearn", "matplotlib", "PIL")
    from training.config import CONFIG_FILE
    from training.report import Pictures, read_evaluation, write_report

    if not (run / CONFIG_FILE).exists():
        raise UserError(f"{run} holds no run: there is no {CONFIG_FILE} in it")
    with told(ValueError):
        evaluation = read_evaluation(run)
        pictures = Pictures.read(run)
    import_tensorflow()
    from training.evaluation.features import Judge, JudgeError

    try:
        judge = Judge.newest()
    except JudgeError as error:
        judge = None
        typer.echo(f"The stages of the run stay without names: {error}", err=True)
    target = out or run
    target.mkdir(parents=True, exist_ok=True)
    classify = (lambda digits: judge.look(digits)[1]) if judge else None
    path = write_report(evaluation, target, run=run, pictures=pictures, classify=classify)
    typer.echo(f"The report: {path}")
