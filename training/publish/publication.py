"""From a run to what is served: the chosen generator, its seed index and its story, the detector, the classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.pretrained import MODELS_DIR
from serving.tf_serving import server_config
from training import job
from training.bar import announce
from training.config import ConfigError, TrainingConfig
from training.data import Dataset
from training.detector import DetectorConfig, detector_of_run
from training.evaluation.classifier import newest_classifier
from training.publish.export import ExportError, export, versions
from training.publish.seed_index import SEEDS
from training.report import story
from training.run.metrics import evaluations
from training.run.selection import CRITERION, Validation, average_of_run, best_step, kept_generators

EARLIER: Final = 6
"""The detector sees so many earlier generators, the last ones."""


@dataclass(frozen=True)
class PublishConfig:
    """How a run is published.

    Attributes:
        base: the model base directories' parent.
        mount_point: ``base`` as the model server will see it.
        detector_steps: steps of the detector's training; None: the default, or as many as the run had if those are
            fewer.
        index_seeds: seeds in the index.
        classifiers: base directory of the classifier, the newest version of which is published.
    """

    base: Path
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT
    detector_steps: int | None = None
    index_seeds: int = SEEDS
    classifiers: Path = MODELS_DIR


def publish_run(run: Path, config: TrainingConfig, trainer: Any, dataset: Dataset, publish: PublishConfig) -> int:
    """Publishes a run's models as one new version.

    The generator is the one that does best on the validation images, of those that the run kept and the average of the
    last half of them; or the last one, where it kept none.

    Args:
        run: the run directory; the detector is kept there for the next time.
        config: the run's.
        trainer: its networks, as they stood last (training.gan.step.Trainer).
        dataset: the run's images.
        publish: where and how.

    Returns:
        The version.

    Raises:
        ConfigError: the images are not those of the run.
        ExportError: nothing was published; the message says why.
    """
    if dataset.fingerprint() != config.data_sha256:
        raise ConfigError("data: these aren't the images that this run began with")
    classifiers = versions(publish.classifiers / CLASSIFIER)
    if not classifiers:
        raise ExportError(
            f"{publish.classifiers / CLASSIFIER} holds no version of a classifier: digitgan train-classifier "
            f"--models {publish.classifiers} makes one"
        )
    announce("Choosing the generator")
    kept = kept_generators(run)
    chosen = _choose(run, config, kept, dataset)
    generator = chosen.generator if chosen else trainer.averaged_generator()
    steps = publish.detector_steps or min(DetectorConfig.steps, trainer.step)
    earlier = [kept[step] for step in sorted(kept) if kept[step] is not generator][-EARLIER:]
    detector = detector_of_run(
        run,
        f"{chosen.name if chosen else f'last-{trainer.step}'}-{steps}",
        trainer.last_discriminator(),
        [generator, *earlier],
        dataset,
        DetectorConfig(steps=steps, seed=config.seed),
    )
    details: dict[str, Mapping[str, Any]] = {DISCRIMINATOR: {"detector": detector.facts}}
    if chosen:
        details[GENERATOR] = {"chosen": chosen.facts}
    classify = newest_classifier(publish.classifiers).probabilities
    document = story.build_story(run, config, classify, chosen.facts if chosen else None)
    announce("Saving the models and comparing each with its network")
    return export(
        {DISCRIMINATOR: detector.network, GENERATOR: generator},
        publish.base,
        job.card_facts(config, run, trainer.step),
        publish.mount_point,
        details=details,
        calibration=detector.calibration,
        classifier=publish.classifiers / CLASSIFIER / str(classifiers[-1]),
        index_seeds=publish.index_seeds,
        story=story.encode(document) if document["milestones"] else None,
    )


@dataclass(frozen=True)
class _Chosen:
    """The generator that is published.

    Attributes:
        generator: the Keras network in float32.
        name: of the choice, as a part of a file name.
        facts: what its model card says of the choice.
    """

    generator: Any
    name: str
    facts: dict[str, Any]


def _choose(run: Path, config: TrainingConfig, kept: dict[int, Any], dataset: Dataset) -> _Chosen | None:
    """Returns the generator with the smallest Fréchet distance to the validation images; None where none was kept."""
    step = best_step(run)
    if step is None:
        return None
    distance = {row["step"]: row[CRITERION] for row in evaluations(run)}[step]
    generator, name, of = kept[step], f"step-{step}", {}
    if average := average_of_run(run, config):
        averaged, steps = average
        averaged_distance = Validation(dataset).figures(averaged)[CRITERION]
        if averaged_distance < distance:
            generator, step, distance = averaged, steps[-1], averaged_distance
            name, of = f"average-{steps[0]}-{steps[-1]}", {"average_of": len(steps), "from_step": steps[0]}
    epoch = round(config.epochs_at(step), 2)
    facts = {"step": step, "epoch": epoch, "by": CRITERION, "validation": round(distance, 4), **of}
    return _Chosen(generator, name, facts)
