"""How well can generated digits be told from real ones at all? The detector's layers against a larger network.

    python -m benchmarks.detector_limit serving/pretrained --data mnist.npz

Both are trained from nothing on the same images, for as many steps, with the same recipe, and judged on the test images
against fresh fakes, beside the discriminator that is served. Where the larger one can't do better either, it is the
generator that sets the limit. Takes hours on two cores: --steps makes it shorter.
"""

from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
import typer
from keras import layers
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from serving.contract import DISCRIMINATOR, GENERATOR, IMAGE_SHAPE, IMAGES, LOGITS, NOISE, PROBABILITIES, SIGNATURE
from training import data
from training.detector import DetectorConfig, fresh, train_detector
from training.export import versions
from training.networks import LEAK, build_discriminator
from training.score_evaluation import score_figures

Images = NDArray[np.uint8]
BATCH = 256


def build_larger() -> Any:
    """Twice as many layers with up to four times the channels: images float32 [N, 28, 28, 1] -> logits [N, 1]."""
    network = keras.Sequential([keras.Input(IMAGE_SHAPE)], name="larger")
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (512, 2)):
        network.add(layers.Conv2D(filters, 3, strides=stride, padding="same"))
        network.add(layers.LeakyReLU(LEAK))
    network.add(layers.Flatten())
    network.add(layers.Dense(1))
    return network


def load(models: Path, name: str) -> Any:
    """The newest version of a model, as a SavedModel that is held on to, and its serving signature."""
    saved = tf.saved_model.load(str(models / name / str(versions(models / name)[-1])))
    return saved, saved.signatures[SIGNATURE]


def main(
    models: Annotated[Path, typer.Argument(help="A base directory with a generator and a discriminator.")],
    source: Annotated[Path | None, typer.Option("--data", help="MNIST, as digitgan train takes it.")] = None,
    steps: Annotated[int, typer.Option(help="Steps to train each for.")] = DetectorConfig.steps,
) -> None:
    """Prints the area under the curve, the accuracy and the number of parameters of all three."""
    dataset = data.load(source)
    _kept, generator = load(models, GENERATOR)
    _kept_too, discriminator = load(models, DISCRIMINATOR)

    def generate(noise: Any) -> Any:
        return generator(**{NOISE: noise})[IMAGES]

    def served(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pixels = images.reshape(-1, *IMAGE_SHAPE)
        answers = [discriminator(tf.constant(pixels[k : k + BATCH])) for k in range(0, len(pixels), BATCH)]
        logits, probabilities = (
            np.concatenate([answer[name] for answer in answers]) for name in (LOGITS, PROBABILITIES)
        )
        return logits, probabilities

    fakes = fresh(generate, len(dataset.x_test), (0, 0))
    table = Table("", "parameters", "area under the curve", "accuracy")

    def tell(name: str, parameters: int, figures: dict[str, Any]) -> None:
        table.add_row(name, f"{parameters:,}", f"{figures['auc']:.4f}", f"{figures['accuracy']:.2%}")

    same = build_discriminator(0.0)
    tell("served", same.count_params(), score_figures(served, dataset.x_test, fakes))
    for name, build in (("the same layers", lambda: build_discriminator(0.0)), ("larger", build_larger)):
        trained = train_detector([], [generate], dataset, DetectorConfig(steps=steps), build)
        tell(name, trained.network.count_params(), score_figures(trained.score, dataset.x_test, fakes))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
