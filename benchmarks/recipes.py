"""What does each part of the recipe do? Trains once with it and once without, for the same number of steps.

    python -m benchmarks.recipes --data mnist.npz --steps 1000

Each line is one run of ``digitgan train`` that differs from the preset by what its name says, measured on the
validation images, never on the test images. The runs are kept, so that a table that was broken off goes on where it
stopped; the table is printed as Markdown.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

TRIALS: Final[dict[str, tuple[str, ...]]] = {
    "best": (),
    "without critics of features": ("--feature-critics", "0"),
    "critics of features at a weight of 1": ("--feature-critics", "1"),
    "critics of features at a weight of 10": ("--feature-critics", "10"),
    "non-saturating loss": ("--loss", "non-saturating"),
    "without gradient penalties": ("--gradient-penalty", "0", "--feature-penalty", "0"),
    "gradient penalty of 1": ("--gradient-penalty", "1"),
    "dropout of 0.2": ("--dropout", "0.2"),
    "Adam's momenta at 0.5 and 0.999": ("--beta-1", "0.5", "--beta-2", "0.999"),
    "step sizes of 0.0002": ("--generator-learning-rate", "0.0002", "--discriminator-learning-rate", "0.0002"),
    "discriminator at twice the step size": ("--discriminator-learning-rate", "0.0016"),
    "batches of 256": ("--batch-size", "256"),
    "constant step sizes": ("--final-learning-rate", "1"),
    "without the average of the weights": ("--ema-decay", "0"),
    "dcgan": ("--preset", "dcgan"),
    "deck": ("--preset", "deck"),
}
FIGURES: Final = ("frechet_distance", "precision", "recall", "density", "coverage", "legible")


def train(name: str, arguments: tuple[str, ...], data: Path | None, steps: int, runs: Path) -> dict[str, float]:
    """Returns the figures of a run of ``steps`` steps, which is trained first unless it is there already."""
    run = runs / name.replace(" ", "-").replace("'", "")
    log = run / "evaluations.jsonl"
    command = [sys.executable, "-m", "digitgan", "train", "--run", str(run), "--resume", "--steps", str(steps)]
    if not run.exists():
        command += ["--preset", "best", *arguments] if "--preset" not in arguments else arguments
        command += ["--mixed-precision", "--evaluate-every", str(steps)]
    if not log.exists() or json.loads(log.read_text("utf-8").splitlines()[-1])["step"] < steps:
        subprocess.run([*command, *(["--data", str(data)] if data else []), "--no-export"], check=True)
    figures: dict[str, float] = json.loads(log.read_text("utf-8").splitlines()[-1])
    return figures


def main(
    data: Annotated[Path | None, typer.Option(help="As for digitgan train.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of each run.", min=1)] = 1000,
    runs: Annotated[Path, typer.Option(help="Where the runs are kept.")] = Path("runs/recipes"),
    only: Annotated[str | None, typer.Option(help="Names of trials, separated by commas. Default: all.")] = None,
) -> None:
    """Trains with and without each part of the preset ``best``, and prints what it did."""
    names = only.split(",") if only else list(TRIALS)
    if unknown := [name for name in names if name not in TRIALS]:
        raise SystemExit(f"--only: there is no trial {unknown[0]!r}; there are {', '.join(TRIALS)}")
    lines = ["| " + " | ".join(["", *FIGURES]) + " |", "| --- " * (len(FIGURES) + 1) + "|"]
    for name in names:
        figures = train(name, TRIALS[name], data, steps, runs)
        lines.append("| " + " | ".join([name, *(f"{figures[key]:.3g}" for key in FIGURES)]) + " |")
    Console(highlight=False, soft_wrap=True).print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
