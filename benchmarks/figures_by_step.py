"""How good were the digits of runs after so many steps, against the test images?

    python -m benchmarks.figures_by_step runs/deck runs/best --data mnist.npz

Measures every generator that the runs kept, as ``digitgan evaluate`` measures a model, and prints a table in Markdown.
``--write-deck`` writes the first run's figures to training/evaluation/deck.json, from where every evaluation takes
what stands under "deck". Nothing is chosen by these figures: the test images are only met here.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from serving.files import write_atomically
from serving.noise import noise_from_seeds
from serving.quiet import quiet_tensorflow_import

IMAGES: Final = 10_000
BATCH: Final = 250
DECK: Final = Path(__file__).parent.parent / "training" / "evaluation" / "deck.json"
COLUMNS: Final = ("frechet_distance", "precision", "recall", "density", "coverage", "legible")


def main(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, as digitgan train makes them.")],
    data: Annotated[Path | None, typer.Option(help="As for digitgan train.")] = None,
    write_deck: Annotated[bool, typer.Option("--write-deck", help="Make the first run the reference.")] = False,
) -> None:
    """Measures the generators that runs kept, step by step."""
    with quiet_tensorflow_import():
        import tensorflow  # noqa: F401
    from training import data as datasets
    from training.evaluation.evaluator import Evaluator
    from training.evaluation.features import Judge
    from training.samples import pixels
    from training.selection import kept_generators

    console = Console(highlight=False, soft_wrap=True)
    dataset = datasets.load(data.resolve() if data else None)
    evaluator = Evaluator(Judge.newest(), dataset.x_test, dataset.y_test, dataset.x_train)
    noise = noise_from_seeds(range(IMAGES))
    rows = [("floor", "", evaluator.floor(IMAGES).figures)]
    for run in runs:
        figures: dict[str, Any] = {}
        for step, generator in track(kept_generators(run).items(), run.name, console=Console(stderr=True)):
            batches = (noise[k : k + BATCH] for k in range(0, IMAGES, BATCH))
            images = np.concatenate([pixels(np.asarray(generator(batch, training=False))) for batch in batches])
            figures[str(step)] = evaluator.figures(images[..., 0])
        rows += [(run.name, taken, values) for taken, values in figures.items()]
        if write_deck and run == runs[0]:
            write_atomically(DECK, json.dumps({"steps": figures}, indent=1) + "\n")
    console.print("| | step | " + " | ".join(COLUMNS) + " |")
    console.print("| --- " * (len(COLUMNS) + 2) + "|")
    for name, taken, values in rows:
        console.print(f"| {name} | {taken} | " + " | ".join(f"{values[column]:.3g}" for column in COLUMNS) + " |")


if __name__ == "__main__":
    typer.run(main)
