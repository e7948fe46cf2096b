"""Waiting for a condition, with a deadline."""

import threading
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Returns once ``condition`` is true. Raises AssertionError if that takes longer than ``seconds``."""
    clock = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        clock.wait(0.02)
    raise AssertionError("the condition did not come true")
