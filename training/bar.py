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

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._done = 0
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
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: int = 1, text: str = "") -> None:
        """Counts ``amount`` more of the total as done; ``text`` is shown after the task's name."""
        self._done += amount
        description = f"{self._name}  {text}".rstrip()
        self._bar.update(self._task, completed=self._done, description=description)
        now = time.monotonic()
        if not self._terminal and self._done and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            pace = (now - self._started) / self._done
            left = time.strftime("%H:%M:%S", time.gmtime(pace * (self._total - self._done)))
            print(f"{description}  {self._done}/{self._total}  left {left}", file=sys.stderr, flush=True)
