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
        console = Console(stderr=True)
        self._name = name
        self._in_log = not console.is_terminal
        self._last_line = time.monotonic()
        self._left = TimeRemainingColumn()
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), self._left)
        self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, disable=self._in_log)
        self._bar.add_task(name, total=total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: int = 1, text: str = "") -> None:
        """Counts ``amount`` more as done. ``text`` follows the name."""
        (task,) = self._bar.tasks
        self._bar.update(task.id, advance=amount, description=f"{self._name}  {text}".rstrip())
        now = time.monotonic()
        if self._in_log and (task.finished or now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            parts = (f"{self._name} {task.completed}/{task.total}", text, f"left {self._left.render(task)}")
            print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)
