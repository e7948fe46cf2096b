"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    message: Callable[[], str] = lambda: "the condition did not come true",
    seconds: float = 120,
) -> None:
    """Returns once ``condition`` is true. Raises AssertionError with ``message`` if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message()
        time.sleep(0.02)
