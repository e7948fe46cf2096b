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

from digitgan.commands import client, dataset, evaluation, models, serving, training
from digitgan.errors import Stopped, stop_on_signals
from serving.errors import UserError

_SETTINGS: Final[dict[str, Any]] = {"no_args_is_help": True, "rich_markup_mode": "rich"}
app: Final = typer.Typer(
    help="Train a DCGAN on MNIST, serve it, and get PNG digits over HTTP.",
    epilog="Start with [bold]digitgan up[/], then open http://127.0.0.1:8000",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_SETTINGS,
)
_models: Final = typer.Typer(help="Choose the version of a model that serves, by labels.", **_SETTINGS)


def _add(group: typer.Typer, name: str, command: Callable[..., None], panel: str | None = None, **options: Any) -> None:
    """Adds a command. Its docstring is the help text; the part below "Examples:" ends the help page."""
    text, _, examples = inspect.cleandoc(command.__doc__ or "").partition("\n\nExamples:\n")
    group.command(
        name,
        help="\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")),
        epilog="Examples:\n" + inspect.cleandoc(examples),
        rich_help_panel=panel,
        **options,
    )(command)


_add(app, "up", serving.up, "Serve")
_add(
    app,
    "serve",
    serving.serve,
    "Serve",
    cls=serving.ServeCommand,
    context_settings={"token_normalize_func": serving.our_name},
)
_add(app, "gateway", serving.gateway, "Serve")
_add(app, "generate", client.generate, "Make digits")
_add(app, "score", client.score, "Make digits")
_add(app, "dataset", dataset.dataset, "Make digits")
_add(app, "train", training.train, "Train")
_add(app, "evaluate", evaluation.evaluate, "Train")
_add(app, "report", evaluation.report, "Train")
_add(app, "export", training.export, "Train")
_add(app, "train-classifier", evaluation.train_classifier, "Train")
_add(app, "key", serving.key, "Manage")
app.add_typer(_models, name="models", rich_help_panel="Manage")
_add(_models, "list", models.list_models)
_add(_models, "promote", models.promote)
_add(_models, "rollback", models.rollback)
_add(_models, "add", models.add)


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
