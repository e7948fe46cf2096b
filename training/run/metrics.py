"""The logs of a run, one JSON line for each interval, and the plot of the losses."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.files import write_atomically
from training.config import METRICS
from training.gan.losses import chance_losses
from training.run import plots

METRICS_FILE: Final = "metrics.jsonl"
"""METRICS, each the mean over the steps since the line before."""
EVALUATIONS_FILE: Final = "evaluations.jsonl"
"""The figures of the averaged generator, and the reference."""
POINTS: Final = 400
"""The most points of a thinned log."""


class RunLog:
    """A log in a run directory: a JSON object a line, each with ``step`` and ``epoch``."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Opens the log; drops lines after ``first_step``, which a resumed run writes again."""
        self._path = path
        kept = [line for line in read_log(path) if line["step"] <= first_step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, step: int, epoch: float, figures: Mapping[str, Any]) -> None:
        """Adds a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "epoch": round(epoch, 4), **figures}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads a log, oldest line first; empty if there is no file. Leaves out a last line that a crash cut short."""
    rows = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def thinned(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Returns a log by column, ``step`` and METRICS, with at most POINTS points, each the mean of an interval.

    Intervals are equally long in the square root of the step, so that the early steps, where most happens, keep more.
    """
    if not rows:
        return {name: [] for name in ("step", *METRICS)}
    steps = np.array([row["step"] for row in rows], np.float64)
    place = np.sqrt(steps / steps[-1]) * POINTS
    _, starts = np.unique(np.minimum(place.astype(int), POINTS - 1), return_index=True)
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in ("step", *METRICS)}
    counts = np.diff([*starts, len(rows)])
    return {
        name: [rounded(float(mean)) for mean in np.add.reduceat(column, starts) / counts]
        for name, column in columns.items()
    }


def rounded(number: float) -> float | None:
    """Rounds to five significant digits. None, JSON's null, stands for a number that is not finite."""
    return float(f"{number:.5g}") if math.isfinite(number) else None


def plot(run: Path, loss: str) -> None:
    """Draws the losses and the discriminator's accuracy of a run with the recipe's ``loss`` into losses.png."""
    write_atomically(run / "losses.png", plots.losses(thinned(read_log(run / METRICS_FILE)), *chance_losses(loss)))
