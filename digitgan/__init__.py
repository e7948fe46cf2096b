"""The command that puts the parts together, and the client: ``from digitgan import Client``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from digitgan.client import AsyncClient, Client, DigitganError, Digits, LabelledDigits, ProblemError, Score, Scores

__all__ = ["AsyncClient", "Client", "DigitganError", "Digits", "LabelledDigits", "ProblemError", "Score", "Scores"]


def __getattr__(name: str) -> Any:
    """Imports the client when it is first named: the commands that serve and train do without httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("digitgan.client"), name)
