"""Decides whether a call is repeated, and after which pause.

Every call of this client only reads, so it is safe to repeat. The client repeats it after a refused or broken
connection, 503 and 429. It does not repeat a call that timed out: the second one would time out too.
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

        A ``Retry-After`` is waited for in full. Other pauses double, less a random part of up to half, so that clients
        that failed together do not return together. If the budget is shorter than the pause, the call fails at once.
        """
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in _FOR_NOW:
                return None
            server_s = retry_after_s(outcome)
        elif isinstance(outcome, _AGAIN):
            server_s = None
        else:
            return None
        pause = server_s if server_s is not None else self._next_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)
        cost = max(pause, _FIRST_PAUSE_S)  # so that "Retry-After: 0" ends too
        if cost > self._left_s:
            return None
        self._left_s -= cost
        return pause
