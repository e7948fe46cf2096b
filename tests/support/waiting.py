"""Waiting for a condition, with a deadline, and clients that never pause."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Answer = TypeVar("Answer")


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


@contextmanager
def repeating(call: Callable[[], Answer], clients: int = 1) -> Iterator[list[Answer]]:
    """Calls again and again, in a thread for each client, while the block runs. Gives the answers so far.

    At the end of the block it raises what a call has raised, after which that client stopped.
    """
    answers: list[Answer] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            answers.append(call())

    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work) for _ in range(clients)]
        try:
            yield answers
        finally:
            ended.set()
    for one in working:
        one.result()
