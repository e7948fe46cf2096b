"""Clients that never pause."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Answer = TypeVar("Answer")


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
