"""Progress of a task of known length: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS: Final = 10.0


def announce(phase: str) -> None:
    """Names on stderr a phase that has no progress to show."""
    print(f"{phase} …", file=sys.stderr, flush=True)


class TaskBar:
    """Shows on stderr how far a task is, and how long it will still take."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        """Begins at ``done`` of ``total``."""
        self._name = name
        self._total = total
        self._first = self._done = done
        self._started = self._last_line = time.monotonic()
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: int = 1, text: str = "") -> None:
        """Counts ``amount`` more as done. ``text`` follows the name."""
        self._done += amount
        now = time.monotonic()
        due = now - self._last_line >= LINE_SECONDS or self._done == self._total
        if not (self._terminal or due):
            return
        self._bar.update(self._task, completed=self._done, description=f"{self._name}  {text}".rstrip())
        if not self._terminal:
            self._last_line = now
            pace = (now - self._started) / max(1, self._done - self._first)
            left = time.strftime("%H:%M:%S", time.gmtime(pace * (self._total - self._done)))
            parts = (f"{self._name} {self._done}/{self._total}", text, f"left {left}")
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)
