"""``digitgan dataset``."""

import time
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from digitgan.commands import GROUP_OPTIONS, command
from digitgan.commands.client import UrlOption, open_client
from digitgan.dataset import FORMAT_HELP, Format
from digitgan.errors import require
from serving.errors import UserError

app: Final = typer.Typer(**GROUP_OPTIONS)

_RETRY_S: Final = 30.0


@command(app, "dataset", "Make digits")
def dataset(
    out: Annotated[Path, typer.Argument(help="The folder to make. It appears when the dataset is complete.")],
    count: Annotated[int, typer.Option(help="Digits in the training part.", min=1, max=1_000_000)] = 60_000,
    test: Annotated[
        int | None,
        typer.Option(
            help="Digits in the test part; 0: none. Default: a sixth of --count, as in MNIST.", min=0, max=1_000_000
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help=FORMAT_HELP)] = "idx",
    balance: Annotated[
        Literal["uniform", "mnist", "natural"],
        typer.Option(
            help="'uniform': equally many of each digit. 'mnist': in MNIST's proportions. 'natural': as the generator "
            "makes them."
        ),
    ] = "uniform",
    confidence: Annotated[float, typer.Option(help="Minimum confidence of the classifier.", min=0, max=1)] = 0.99,
    score_floor: Annotated[
        float | None,
        typer.Option(
            help="Minimum logit of the discriminator, as in labels.csv; it costs some digits more seeds than "
            "others. Default: none."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Which dataset: two with different seeds share no digit.", min=0, max=2**21 - 1)
    ] = 0,
    version: Annotated[int | None, typer.Option(help="The generator's version. Default: the newest.")] = None,
    url: UrlOption = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Start a service on these models for this command alone: MODELS/<name>/<version>."),
    ] = None,
) -> None:
    """Make a dataset of labelled digits. The same command always makes the same dataset.

    The gateway at --url makes the digits. If there is none, the command starts a service and ends it afterwards. A
    command that was stopped continues where it stopped. dataset.json lists the models and the seeds; labels.csv
    has the seed, confidence and logit of each digit.

    Examples:
        digitgan dataset digits                              60,000 and 10,000
        digitgan dataset digits --count 6000 --format png    folders, as ImageFolder
    """
    require("client")
    from digitgan.dataset import job
    from digitgan.dataset.plan import Plan

    if url and models:
        raise UserError("--url and --models both say what makes the digits: give one of them")
    plan = Plan(
        train=count,
        test=count // 6 if test is None else test,
        format=format_,
        balance=balance,
        confidence_floor=confidence,
        logit_floor=score_floor,
        seed=seed,
        generator=version,
    )
    if job.is_finished(out, plan):
        typer.echo(f"{out} is there already, with these options")
        return
    job.partial_folder(out).mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    local = models is not None
    if not local:
        try:
            with open_client(url, local=False) as client:
                client.models()
        except UserError:
            if url:  # A wrong address is an error at once. A later outage is waited out.
                raise
            local = True
    with open_client(url, local=local, models=models and models.resolve(), retry_s=_RETRY_S) as client:
        job.make(out, plan, client)
    typer.echo(f"{out} is complete, in {time.monotonic() - started:.0f} seconds")
