"""Which of a run's generators is served: the one that does best on images held out of the training."""

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.noise import noise_from_seeds
from training.config import ConfigError, TrainingConfig
from training.data import Dataset, in_batches
from training.evaluation.classifier import EvaluationClassifier
from training.evaluation.evaluator import Evaluator
from training.gan import networks
from training.run.metrics import EVALUATIONS_FILE, RunLog, read_log

GENERATORS: Final = "generators"
CRITERION: Final = "frechet_distance"


class Validation:
    """Measures generators on as many images as there are validation images, against those."""

    def __init__(self, dataset: Dataset, classifier: EvaluationClassifier) -> None:
        """Raises UserError where the validation images are too few."""
        self._evaluator = Evaluator(classifier, *dataset.validation, dataset.training[0], light=True)
        self._noise = noise_from_seeds(range(len(dataset.validation[0])))

    def figures(self, generator: Any) -> dict[str, Any]:
        """Returns the figures of a light evaluation of a generator in float32."""
        images = in_batches(lambda noise: networks.to_pixels(generator(noise, training=False)), self._noise)
        return self._evaluator.measure(images[..., 0]).figures

    @cached_property
    def reference(self) -> dict[str, Any]:
        """The figures of as many training images."""
        return self._evaluator.measure_real(len(self._noise), samples=1)["figures"]

    def keep(self, run: Path, log: RunLog, step: int, epoch: float, generator: Any) -> None:
        """Measures a run's averaged generator, in float32, after a step, and keeps its weights in generators/."""
        (run / GENERATORS).mkdir(exist_ok=True)
        networks.write_weights(_weights_file(run, step), generator.get_weights())
        log.append(step, epoch, {**self.figures(generator), "reference": self.reference})


def kept_generators(run: Path) -> dict[int, Any]:
    """A run's measured generators by step, ascending. Raises ConfigError if the weights of one are missing."""
    files = {row["step"]: _weights_file(run, row["step"]) for row in read_log(run / EVALUATIONS_FILE)}
    if missing := [str(file) for file in files.values() if not file.exists()]:
        raise ConfigError(f"{', '.join(missing)}: the weights of a generator that was measured are missing")
    return {
        step: networks.float32_copy(networks.build_generator, networks.read_weights(file))
        for step, file in sorted(files.items())
    }


def average_of(kept: dict[int, Any], config: TrainingConfig) -> tuple[Any, list[int]] | None:
    """Averages the generators of a run's last half, if two or more (Izmailov et al. 2018). Returns their steps too."""
    steps = [step for step in kept if 2 * step >= max(kept)]
    if len(steps) < 2:
        return None
    weights = zip(*(kept[step].get_weights() for step in steps), strict=True)
    average = [np.mean(each, axis=0) for each in weights]
    return networks.averaged_generator(average, config.recipe.batch_size, config.seed), steps


def choose(
    run: Path, config: TrainingConfig, kept: dict[int, Any], validation: Validation
) -> tuple[Any, str, dict[str, Any]]:
    """Returns the generator nearest to the validation images, its name for files, and what the model card says."""
    distances = {row["step"]: row[CRITERION] for row in read_log(run / EVALUATIONS_FILE)}
    step = min(distances, key=distances.__getitem__)
    generator, distance, name, of = kept[step], distances[step], f"step-{step}", {}
    if average := average_of(kept, config):
        averaged, steps = average
        averaged_distance = validation.figures(averaged)[CRITERION]
        if averaged_distance < distance:
            generator, step, distance = averaged, steps[-1], averaged_distance
            name, of = f"average-{steps[0]}-{steps[-1]}", {"average_of": len(steps), "from_step": steps[0]}
    epoch = round(config.epochs_at(step), 2)
    return generator, name, {"step": step, "epoch": epoch, "by": CRITERION, "validation": round(distance, 4), **of}


def _weights_file(run: Path, step: int) -> Path:
    return run / GENERATORS / f"step-{step:06}.npz"
