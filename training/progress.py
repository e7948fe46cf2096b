"""A run's progress: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from training.config import TrainingConfig

LINE_SECONDS = 10.0


class Progress:
    """Shows steps, epoch, both losses, the discriminator's accuracy and the time left, on stderr."""

    def __init__(self, first_step: int, config: TrainingConfig) -> None:
        self._config = config
        self._first_step = first_step
        self._started = self._last_line = time.monotonic()
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("starting", total=config.steps, completed=first_step)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int, metrics: Any) -> None:
        """Shows a step's result.

        Args:
            step: steps taken.
            metrics: float32 [4], training.step.METRICS.
        """
        now = time.monotonic()
        due = now - self._last_line >= LINE_SECONDS or step == self._config.steps
        if not self._terminal and not due:
            return
        g_loss, d_loss, real, fake = (float(value) for value in metrics)
        text = (
            f"epoch {self._config.epochs_at(step):6.2f}  G {g_loss:.3f}  D {d_loss:.3f}  "
            f"D right on real {real:4.0%}, on fake {fake:4.0%}"
        )
        self._bar.update(self._task, completed=step, description=text)
        if not self._terminal:
            self._last_line = now
            pace = (now - self._started) / (step - self._first_step)
            left = time.strftime("%H:%M:%S", time.gmtime(pace * (self._config.steps - step)))
            print(f"step {step}/{self._config.steps}  {text}  left {left}", file=sys.stderr, flush=True)
