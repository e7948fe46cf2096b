"""Failures that the user of the command line can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class UserError(Exception):
    """What went wrong and what to do next, in a sentence or two."""


@contextmanager
def told(*kinds: type[Exception]) -> Iterator[None]:
    """Turns the given kinds of exception, whose messages are written for users, into UserError."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error


def require(extra: str, *modules: str) -> None:
    """Raises UserError where an optional part isn't installed.

    Args:
        extra: the extra that brings it.
        modules: top-level modules that it consists of.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise UserError(
            f"this needs {', '.join(missing)}, of the extra '{extra}'. In digitgan's directory: "
            f"{sys.executable} -m pip install --constraint requirements.lock --editable '.[{extra}]'"
        )
