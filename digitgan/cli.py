"""The command ``digitgan``: its subcommands, and how it reports their failures."""

import errno
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from digitgan.commands import client, dataset, evaluation, key, models, report, serving, training
from digitgan.errors import Stopped, UserError, stop_on_signals

_SETTINGS: Final[dict[str, Any]] = {"no_args_is_help": True, "rich_markup_mode": "rich"}
app: Final = typer.Typer(
    help="Train a DCGAN on MNIST, serve it, and get PNG digits over HTTP.",
    epilog="Start with [bold]digitgan up[/], then open http://127.0.0.1:8000",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_SETTINGS,
)
_models: Final = typer.Typer(help="Choose the version of a model that serves, by labels.", **_SETTINGS)


def _add(
    name: str, command: Callable[..., None], panel: str | None, examples: str, group: typer.Typer = app, **options: Any
) -> None:
    """Adds a command. Its docstring is the help text, and ``examples`` are the last lines of it."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    group.command(
        name,
        help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
        epilog="Examples:\n" + inspect.cleandoc(examples),
        rich_help_panel=panel,
        **options,
    )(command)


_add(
    "up",
    serving.up,
    "Serve",
    """
    digitgan up                        the models in the package
    digitgan up --models RUN/models    your own, and new versions as they appear
    """,
)
_add(
    "serve",
    serving.serve,
    "Serve",
    """
    digitgan serve --models RUN/models
    digitgan serve --config models.config --port 8501
    """,
    cls=serving.ServeCommand,
    context_settings={"token_normalize_func": serving.our_name},
)
_add(
    "gateway",
    serving.gateway,
    "Serve",
    """
    digitgan gateway --model-server localhost:8500
    DIGITGAN_LOG_FORMAT=json digitgan gateway --port 8001
    """,
)
_add(
    "generate",
    client.generate,
    "Make digits",
    """
    digitgan generate --count 5 --digit 3 --curated            five clear threes
    digitgan generate --count 1000 --labels --out digits.zip   with labels.csv
    """,
)
_add(
    "score",
    client.score,
    "Make digits",
    """
    digitgan score 7.png photo.jpg
    digitgan score digits/            all images of a folder
    """,
)
_add(
    "dataset",
    dataset.dataset,
    "Make digits",
    """
    digitgan dataset digits                              60,000 and 10,000
    digitgan dataset digits --count 6000 --format png    folders, as ImageFolder
    """,
)
_add(
    "train",
    training.train,
    "Train",
    """
    digitgan train --steps 1000                    a few minutes on two cores
    digitgan train --data mnist.npz --epochs 40    as the model in the package
    """,
)
_add(
    "evaluate",
    evaluation.evaluate,
    "Train",
    """
    digitgan evaluate RUN                   the newest models of a run
    digitgan evaluate serving/pretrained    the models in the package
    """,
)
_add(
    "report",
    report.report,
    "Train",
    """
    digitgan report RUN
    digitgan report RUN --out public/
    """,
)
_add(
    "export",
    training.export,
    "Train",
    """
    digitgan export RUN
    digitgan export RUN --models /models
    """,
)
_add(
    "train-classifier",
    evaluation.train_classifier,
    "Train",
    """
    digitgan train-classifier --data mnist.npz
    digitgan train-classifier --data letters.npz --models models
    """,
)
_add(
    "key",
    key.key,
    "Manage",
    """
    digitgan key alice
    digitgan key bob --images 600    at most 600 images a minute
    """,
)
app.add_typer(_models, name="models", rich_help_panel="Manage")
_add(
    "list",
    models.list_models,
    None,
    """
    digitgan models list
    digitgan models list --models /models --model-server localhost:8500
    """,
    _models,
)
_add(
    "promote",
    models.promote,
    None,
    """
    digitgan models promote generator 4 --canary    for requests that name it
    digitgan models promote generator 4             for all requests
    """,
    _models,
)
_add(
    "rollback",
    models.rollback,
    None,
    """
    digitgan models rollback generator
    digitgan models rollback generator --model-server localhost:8500
    """,
    _models,
)
_add(
    "add",
    models.add,
    None,
    """
    digitgan models add RUN/models
    digitgan models add RUN/models --models /models
    """,
    _models,
)

_OF_DISKS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Reading and writing fail with these errors, without the name of the file."""


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"digitgan {version('digitgan')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line.

    A failure that the user can mend is one sentence on stderr and exit status 2. A signal that stops the command is
    one line, and 128 plus its number: 130 for Ctrl-C.
    """
    stop_on_signals()
    try:
        app()
    except Stopped as stopped:
        print(f"\nStopped. {stopped.remark}".rstrip(), file=sys.stderr)
        sys.exit(stopped.status)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno not in _OF_DISKS:
            raise
        _fail(": ".join(filter(None, (error.filename, error.strerror))))


def _fail(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]digitgan:[/]", escape(sentence))
    sys.exit(2)
