"""Progress of a task of known length: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS: Final = 10.0


def announce(phase: str) -> None:
    """Names on stderr a phase that has no progress to show."""
    print(f"{phase} …", file=sys.stderr, flush=True)


@contextmanager
def task_bar(name: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Shows on stderr how far a task is. Gives a function that counts more as done; a text follows the name."""
    console = Console(stderr=True)
    left = TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    last_line = time.monotonic()
    with Progress(*columns, TextColumn("left"), left, console=console, disable=not console.is_terminal) as bar:
        bar.add_task(name, total=total, completed=done)

        def advance(amount: int, text: str) -> None:
            nonlocal last_line
            (task,) = bar.tasks
            bar.update(task.id, advance=amount, description=f"{name}  {text}".rstrip())
            if bar.disable and (task.finished or time.monotonic() - last_line >= LINE_SECONDS):
                last_line = time.monotonic()
                parts = (f"{name} {task.completed}/{task.total}", text, f"left {left.render(task)}")
                print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)

        yield advance
