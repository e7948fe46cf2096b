"""The logs of a run, one JSON line an interval, and the plot that is drawn from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving.files import write_atomically
from training import plots
from training.config import CONFIG_FILE

METRICS: Final = ("generator_loss", "discriminator_loss", "accuracy_real", "accuracy_fake")
"""What a step measures, in the order of its result: losses in nats, then the share of images that the discriminator
told rightly, among the real and among the generated ones."""

METRICS_FILE: Final = "metrics.jsonl"
EVALUATIONS_FILE: Final = "evaluations.jsonl"
PLOT_FILE: Final = "losses.png"


class MetricsLog:
    """metrics.jsonl in a run directory.

    A line holds ``step``, ``epoch`` and METRICS, each the mean over the steps since the line before.
    """

    def __init__(self, run: Path, first_step: int) -> None:
        """Opens the log; lines after ``first_step`` are dropped, for a resumed run writes them again."""
        self._path = run / METRICS_FILE
        kept = [line for line in self.rows(run) if line["step"] <= first_step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, step: int, epoch: float, means: Sequence[float]) -> None:
        """Adds a line.

        Args:
            step: steps taken.
            epoch: passes over the training set.
            means: METRICS, in their order.
        """
        line = {"step": step, "epoch": round(epoch, 4), **dict(zip(METRICS, map(float, means), strict=True))}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @staticmethod
    def rows(run: Path) -> list[dict[str, float]]:
        """The lines of a run's log, oldest first. A last line that was cut short by a crash is left out."""
        return _lines(run / METRICS_FILE)


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluations during a run, oldest first: ``step``, ``epoch`` and the figures. Empty where there are none."""
    return _lines(run / EVALUATIONS_FILE)


def loss_of(run: Path) -> str:
    """The name of the loss in the run's recipe; empty for a run from before there was a choice."""
    try:
        return str(json.loads((run / CONFIG_FILE).read_text("utf-8"))["recipe"].get("loss", ""))
    except FileNotFoundError:
        return ""


def plot(run: Path) -> Path:
    """Draws both losses and the discriminator's accuracy into losses.png (:func:`training.plots.losses`)."""
    write_atomically(run / PLOT_FILE, plots.losses(MetricsLog.rows(run), loss_of(run)))
    return run / PLOT_FILE


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
