"""The commands, by subject. Each module has an ``app`` with its commands, and is imported when one of them is used."""

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

import typer

_F = TypeVar("_F", bound=Callable[..., Any])

GROUP_OPTIONS: Final[dict[str, Any]] = {"no_args_is_help": True, "rich_markup_mode": "rich"}


def command(app: typer.Typer, name: str, panel: str | None = None, **options: Any) -> Callable[[_F], _F]:
    """Adds the decorated function to ``app``.

    Its docstring is the help text; the part below "Examples:" ends the help page. ``panel`` groups commands on the help
    page of ``app``, and ``options`` are those of ``typer.Typer.command``.
    """

    def add(function: _F) -> _F:
        text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
        return app.command(
            name,
            help="\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")),
            epilog="Examples:\n" + inspect.cleandoc(examples),
            rich_help_panel=panel,
            **options,
        )(function)

    return add
