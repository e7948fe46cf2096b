"""How many calls may be made a second time: a few at once, and in the long run a tenth of those that succeed."""

from typing import Final

AT_ONCE: Final = 10
"""Second attempts that a budget holds at the most, and at the start."""

OF_EACH_SUCCESS: Final = 0.1
"""What a call that succeeds adds to it."""


class RetryBudget:
    """So a server that goes away costs nobody's request, and one that stays away isn't asked twice as often."""

    def __init__(self) -> None:
        self._level = float(AT_ONCE)

    def succeeded(self) -> None:
        """Notes a call that succeeded."""
        self._level = min(AT_ONCE, self._level + OF_EACH_SUCCESS)

    def take(self) -> bool:
        """Returns whether a call may be made again, and takes that from the budget."""
        if self._level < 1:
            return False
        self._level -= 1
        return True
