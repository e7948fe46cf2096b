"""The command ``digitgan``: its subcommands, and how it reports their failures."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_group

from digitgan.commands import GROUP_OPTIONS
from digitgan.errors import Stopped, stop_on_signals
from serving.errors import UserError

_MODULES: Final = {  # of the commands, below ``digitgan.commands``; the help page has this order
    **dict.fromkeys(("up", "serve", "gateway"), "serving"),
    **dict.fromkeys(("generate", "score", "dataset"), "client"),
    **dict.fromkeys(("train", "evaluate", "report", "export", "train-classifier"), "training"),
    "key": "serving",
    "models": "models",
}


class _Commands(Mapping[str, Any]):
    """The commands by name. Each is imported when it is looked up: a command does not wait for the code of others."""

    def __getitem__(self, name: str) -> Any:
        return get_group(import_module(f"digitgan.commands.{_MODULES[name]}").app).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


class _Group(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": _Commands()})


app: Final = typer.Typer(
    cls=_Group,
    help="Train a DCGAN on MNIST, serve it, and get PNG digits over HTTP.",
    epilog="Start with [bold]digitgan up[/], then open http://127.0.0.1:8000",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    **GROUP_OPTIONS,
)


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"digitgan {version('digitgan')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line.

    A failure that the user can mend is one sentence on stderr and exit status 2. A signal that stops the command is
    one line, and 128 plus its number: 130 for Ctrl-C.
    """
    try:
        with stop_on_signals():
            app()
    except Stopped as stopped:
        print("\nStopped.", file=sys.stderr)
        sys.exit(stopped.status)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(": ".join(filter(None, (error.filename, error.strerror or str(error)))))


def _fail(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]digitgan:[/]", escape(sentence))
    sys.exit(2)
