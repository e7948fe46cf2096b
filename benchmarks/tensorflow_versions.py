"""Do the exported models say the same on every TensorFlow that may serve them?

    python -m benchmarks.tensorflow_versions [--models DIR] [--rows 2048]

TensorFlow Serving's releases trail TensorFlow's, so a model is served by an older runtime than the one that exported
it. This makes an environment for each of VERSIONS with that TensorFlow from PyPI, loads the newest version of each
model there as TensorFlow Serving does, runs every signature, and compares with the TensorFlow that this project locks.

Writes the table in k8s/README.md. The exit status is 1 if a model doesn't load, or a pixel differs.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.environments import environment
from benchmarks.marked import replace_between_marks
from serving.contract import GENERATOR, IMAGES, MODELS, NOISE, PAGES, SIGNATURE, SIGNATURES
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions

VERSIONS: Final = ("2.19.1", "2.20.0", "2.21.0")
"""The releases of TensorFlow since the one of the TensorFlow Serving that k8s/base pins."""

DOCS: Final = Path(__file__).parent.parent / "k8s/README.md"
RUNNER: Final = Path(__file__).parent / "run_saved_models.py"
_PAGES: Final = 4

Answers = Mapping[str, NDArray[Any]]


def run(python: Path | str, inputs: Mapping[str, NDArray[Any]], models: Path) -> Answers:
    """Returns what a Python's TensorFlow answers, by "model/signature/output", for inputs by their name."""
    with tempfile.TemporaryDirectory() as directory:
        asked = {}
        for (model, signature), spec in SIGNATURES.items():
            if spec.input.name not in inputs:
                continue
            rows = Path(directory) / f"{spec.input.name}.npy"
            np.save(rows, inputs[spec.input.name])
            newest = max(find_versions(models / model))
            asked[f"{model}/{signature}"] = [str(models / model / str(newest)), signature, spec.input.name, str(rows)]
        (Path(directory) / "models.json").write_text(json.dumps(asked))
        answers = Path(directory) / "answers.npz"
        subprocess.run([python, RUNNER, Path(directory) / "models.json", answers], check=True, stdout=subprocess.PIPE)
        return dict(np.load(answers))


def greatest_difference(one: Answers, other: Answers, keys: list[str]) -> float:
    """Returns the greatest difference between the numbers of two answers."""
    return max(float(np.abs(one[key].astype(np.float64) - other[key].astype(np.float64)).max()) for key in keys)


def main(
    models: Annotated[Path, typer.Option(help="The base directory.")] = MODELS_DIR,
    rows: Annotated[int, typer.Option(help="Seeds to draw, and images to look at.", min=16)] = 2048,
) -> None:
    """Loads the models on each version of TensorFlow, and compares what they say."""
    console = Console()
    noise: dict[str, NDArray[Any]] = {NOISE: noise_from_seeds(range(rows)), PAGES: np.arange(_PAGES, dtype=np.int64)}
    images = f"{GENERATOR}/{SIGNATURE}/{IMAGES}"
    inputs = noise | {IMAGES: run(sys.executable, noise, models)[images]}
    reference = run(sys.executable, inputs, models)
    same = True
    lines = [
        "| TensorFlow | pixels that differ | differences up to: pixel, logit or probability, feature | index, story |",
        "| --- | --- | --- | --- |",
    ]
    for version in VERSIONS:
        python = environment(f"tensorflow-{version}", f"tensorflow-cpu=={version}\n", console)
        answers = run(python, inputs, models)
        differing = int((answers[images] != reference[images]).sum())
        pixel = greatest_difference(answers, reference, [images])
        words = [f"{name}/{SIGNATURE}/{output.name}" for name in MODELS for output in MODELS[name].outputs]
        number = greatest_difference(answers, reference, [key for key in words if key != images])
        feature = greatest_difference(answers, reference, [key for key in answers if "/features/" in key])
        stored = [key for key in answers if "/seed_index/" in key or "/story/" in key]
        equal = all(np.array_equal(answers[key], reference[key]) for key in stored)
        same = same and not differing and equal
        lines.append(
            f"| {version} | {differing:,} of {answers[images].size:,} | {pixel:.0f}, {number:.1g}, {feature:.1g} "
            f"| {'the same bytes' if equal else 'differ'} |"
        )
        console.print(lines[-1])
    if models == MODELS_DIR:
        replace_between_marks(DOCS, "benchmarks.tensorflow_versions", "\n".join(lines))
    raise typer.Exit(int(not same))


if __name__ == "__main__":
    typer.run(main)
