"""Can a dataset of generated digits stand in for MNIST? And what does making it cost?

    python -m benchmarks.dataset --data mnist.npz

Makes a dataset by one command, with the time it takes, the command's peak memory and the balance of the classes. Then
trains the same classifier twice, on the generated digits alone and on as many of MNIST's training images, in the same
number of steps, and has both read MNIST's test images, which neither has met.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table


def main(
    data: Annotated[Path, typer.Option(help="MNIST: an .npz as Keras lays it out, or a folder with its IDX files.")],
    dataset: Annotated[
        Path | None, typer.Option(help="A dataset in MNIST's IDX files that is there already. Default: make one.")
    ] = None,
    count: Annotated[int, typer.Option(help="Digits to make and to train on.")] = 60_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 12,
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Compute in bfloat16, keep weights in float32.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="A gateway. Default: a service for the command alone.")] = None,
) -> None:
    """Trains a classifier on generated digits and one on MNIST, and compares how they read MNIST's test images."""
    from training import classifier, devices
    from training import data as datasets

    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as directory:
        if dataset is None:
            dataset = Path(directory) / "digits"
            command = [sys.executable, "-m", "digitgan", "dataset", str(dataset), "--count", str(count), "--test", "10"]
            start = time.monotonic()
            subprocess.run([*command, *(["--url", url] if url else [])], check=True)
            # The largest of the command and what it started: without --url, that of a service.
            mebibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            manifest: dict[str, Any] = json.loads((dataset / "dataset.json").read_text("utf-8"))
            console.print(
                f"{count:,} digits in {time.monotonic() - start:.0f} s, at most {mebibytes:.0f} MiB; of each class "
                f"{min(manifest['digits']['train']):,} to {max(manifest['digits']['train']):,}"
            )
        real, made = datasets.load(data.resolve()), datasets.load(dataset)
    devices.strategy()
    config = classifier.ClassifierConfig(epochs=epochs, mixed_precision=mixed_precision)
    table = Table("trained on", "images", "steps", "accuracy on MNIST's test images", "calibration error")
    chosen = np.random.default_rng(0).permutation(len(real.x_train))[:count]
    for name, images, labels in (
        ("generated digits", made.x_train[:count], made.y_train[:count]),
        ("MNIST", real.x_train[chosen], real.y_train[chosen]),
    ):
        network = classifier.fit(classifier.build_classifier, config, images, labels, name)
        test = classifier.measure_classifier(network, real.x_test, real.y_test)
        steps = epochs * (len(images) // classifier.BATCH_SIZE)
        error = f"{test['expected_calibration_error']:.4f}"
        table.add_row(name, f"{len(images):,}", f"{steps:,}", f"{test['accuracy']:.2%}", error)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
