"""The errors that the command line prints as a sentence."""

from typing import Final

START_AGAIN: Final = "Remove that version, or publish it again under a new number; then start again"
"""What to do about a version that cannot be loaded."""


class UserError(Exception):
    """An error that the user can mend. The message says what happened and what to do next, in a sentence or two."""
