"""The errors that the command line prints as a sentence."""


class UserError(Exception):
    """An error that the user can mend. The message says what happened and what to do next, in a sentence or two."""
