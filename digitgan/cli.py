"""The command ``digitgan``: its subcommands, and how it reports their failures."""

import errno
import sys
from importlib.metadata import version
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from digitgan.commands import client as client_commands
from digitgan.commands import dataset as dataset_commands
from digitgan.commands import evaluation as evaluation_commands
from digitgan.commands import key as key_command
from digitgan.commands import models as models_commands
from digitgan.commands import report as report_commands
from digitgan.commands import serving as serving_commands
from digitgan.commands import training as training_commands
from digitgan.errors import Stopped, UserError, stop_on_signals

app: Final = typer.Typer(
    help="Train a DCGAN on MNIST, serve it, and get PNG digits over HTTP.",
    epilog="Begin with: digitgan up   (a pretrained model is in the package), then open http://127.0.0.1:8000/docs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(serving_commands.up)
app.command(
    "serve",
    cls=serving_commands.ServeCommand,
    context_settings={"token_normalize_func": serving_commands.our_name},
)(serving_commands.serve)
app.command("gateway")(serving_commands.gateway)
app.command("key")(key_command.key)
app.command("generate")(client_commands.generate)
app.command("score")(client_commands.score)
app.command("dataset")(dataset_commands.dataset)
app.command("train")(training_commands.train)
app.command("export")(training_commands.export)
app.command("evaluate")(evaluation_commands.evaluate)
app.command("report")(report_commands.report)
app.command("train-classifier")(evaluation_commands.train_classifier)
app.add_typer(models_commands.app, name="models")


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
