"""When a call is made again, and after how long.

Every call of this client only reads: the same seeds give the same digits, and scoring changes nothing. So each is safe
to repeat. It is repeated where that can help, the connection refused or broken, 503 and 429, and never after a
time-out: whoever had no time for the first would have none for the second.
"""

import random
from typing import Final

import httpx

from digitgan.client.errors import retry_after_s

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_FOR_NOW: Final = (429, 503)
_AGAIN: Final = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)

Outcome = httpx.Response | httpx.TransportError


class Retries:
    """The retries of one call. ``budget_s``: the seconds that all pauses may take together; 0: none."""

    def __init__(self, budget_s: float) -> None:
        self._left_s = budget_s
        self._next_s = _FIRST_PAUSE_S

    def pause_s(self, outcome: Outcome) -> float | None:
        """Returns how long to wait before the call is made again; None if it isn't to be.

        A ``Retry-After`` is waited for in full. A pause without one is twice the last, less a random part of up to
        half, so that clients who failed together don't come back together. If less than the pause is left of the
        budget, the call fails at once: waiting in vain helps nobody.
        """
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in _FOR_NOW:
                return None
            told_s = retry_after_s(outcome)
        elif isinstance(outcome, _AGAIN):
            told_s = None
        else:
            return None
        pause = told_s if told_s is not None else self._next_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)
        cost = max(pause, _FIRST_PAUSE_S)  # so that "Retry-After: 0" ends too
        if cost > self._left_s:
            return None
        self._left_s -= cost
        return pause
