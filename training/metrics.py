"""The log of a run: one JSON line an interval, and the plot that is drawn from it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serving.files import write_atomically

METRICS: Final = ("generator_loss", "discriminator_loss", "accuracy_real", "accuracy_fake")
"""What a step measures, in the order of its result: losses in nats, then the share of images that the discriminator
told rightly, among the real and among the generated ones."""

METRICS_FILE: Final = "metrics.jsonl"
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
        rows = []
        if (run / METRICS_FILE).exists():
            for line in (run / METRICS_FILE).read_text("utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows


def plot(run: Path) -> Path:
    """Draws both losses and the discriminator's accuracy over the steps into losses.png.

    The dotted lines stand where the losses would be if the discriminator could only guess: ln 2 for the generator's,
    2 ln 2 for the discriminator's.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    rows = MetricsLog.rows(run)
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(9, 6), layout="constrained")
    losses, accuracy = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name, colour, guess in (
        ("generator_loss", "tab:blue", math.log(2)),
        ("discriminator_loss", "tab:orange", 2 * math.log(2)),
    ):
        losses.plot(steps, [row[name] for row in rows], color=colour, linewidth=1, label=name.replace("_", " "))
        losses.axhline(guess, color=colour, linestyle=":", linewidth=1)
    losses.set_ylabel("loss (nats)")
    losses.set_ylim(bottom=0)
    losses.legend(loc="lower right")
    losses.set_title("Losses; dotted: where each would be if the discriminator could only guess", fontsize=10)
    for name, colour in (("accuracy_real", "tab:green"), ("accuracy_fake", "tab:red")):
        accuracy.plot(steps, [row[name] for row in rows], color=colour, linewidth=1, label=name.split("_")[1])
    accuracy.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    accuracy.set_ylabel("D's accuracy")
    accuracy.set_ylim(0, 1)
    accuracy.set_xlabel("step")
    accuracy.legend(loc="lower right")
    png = BytesIO()
    figure.savefig(png, format="png", dpi=110)
    write_atomically(run / PLOT_FILE, png.getvalue())
    return run / PLOT_FILE
