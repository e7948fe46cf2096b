"""From a run to what is served: the chosen generator, its seed index and its story, the detector, the classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from serving import server_config
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.pretrained import MODELS_DIR
from training import job, story
from training.averaging import average_of_run
from training.bar import announce
from training.config import ConfigError, TrainingConfig
from training.data import Dataset
from training.detector import DetectorConfig, detector_of_run
from training.evaluation.classifier import ClassifierError, newest_classifier
from training.export import ExportError, Labels, export, versions
from training.metrics import evaluations
from training.seed_index import SEEDS
from training.selection import CRITERION, Validation, best_step, kept_generators

EARLIER: Final = 6
"""As many earlier generators as the detector is shown, the last ones."""


@dataclass(frozen=True)
class Publication:
    """How a run is published.

    Attributes:
        base: the model base directories' parent.
        mount_point: ``base`` as the model server will see it.
        detector: train the discriminator on as a detector; otherwise it is published as the game left it.
        detector_steps: how long; None: the default, or as long as the run if that was shorter.
        index_seeds: how many seeds to look at for the index; 0: publish neither an index nor the classifier.
        classifiers: base directory of the classifier, the newest version of which is published.
    """

    base: Path
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT
    detector: bool = True
    detector_steps: int | None = None
    index_seeds: int = SEEDS
    classifiers: Path = MODELS_DIR

    def __post_init__(self) -> None:
        """Raises ConfigError for a value outside its range."""
        if self.detector_steps is not None and self.detector_steps < 1:
            raise ConfigError(f"detector_steps must be at least 1, not {self.detector_steps}")
        if self.index_seeds < 0:
            raise ConfigError(f"index_seeds must be at least 0, not {self.index_seeds}")


def publish_run(
    run: Path, config: TrainingConfig, trainer: Any, dataset: Dataset | None, publication: Publication
) -> int:
    """Publishes a run's models as one new version.

    The generator is the one that does best on the validation images, of those that the run kept and the average of the
    last half of them; or the last one, where it kept none.

    Args:
        run: the run directory; the detector is kept there for the next time.
        config: the run's.
        trainer: its networks, as they stood last (training.step.Trainer).
        dataset: the run's images; without them there can be no detector, and the average isn't considered.
        publication: where and how.

    Returns:
        The version.

    Raises:
        ConfigError: the detector's images are missing, or not those of the run.
        ExportError: nothing was published; the message tells why.
    """
    if dataset is not None and dataset.fingerprint() != config.data_sha256:
        raise ConfigError("data: these aren't the images that this run began with")
    announce("Choosing the generator")
    kept = kept_generators(run)
    chosen = _choose(run, config, kept, dataset)
    generator = chosen.generator if chosen else trainer.averaged_generator()
    discriminator = trainer.last_discriminator()
    details: dict[str, Mapping[str, Any]] = {GENERATOR: {"chosen": chosen.facts}} if chosen else {}
    calibration = None
    if publication.detector:
        if dataset is None:
            raise ConfigError("data: the detector needs the training images that this run began with")
        steps = publication.detector_steps or min(DetectorConfig.steps, trainer.step)
        earlier = [kept[step] for step in sorted(kept) if kept[step] is not generator][-EARLIER:]
        detector = detector_of_run(
            run, discriminator, [generator, *earlier], dataset, DetectorConfig(steps=steps, seed=config.seed)
        )
        discriminator, calibration = detector.network, detector.calibration
        details[DISCRIMINATOR] = {"detector": detector.facts}
    labels = Labels(_newest(publication.classifiers), publication.index_seeds) if publication.index_seeds else None
    announce("Saving the models and comparing each with its network")
    return export(
        {DISCRIMINATOR: discriminator, GENERATOR: generator},
        publication.base,
        job.card_facts(config, run, trainer.step),
        publication.mount_point,
        details=details,
        calibration=calibration,
        labels=labels,
        story=_story(run, config, publication.classifiers, chosen.facts if chosen else None),
    )


@dataclass(frozen=True)
class _Chosen:
    """The generator that is published, and what its card tells of the choice. ``step``: the last one that it is of."""

    generator: Any
    step: int
    facts: dict[str, Any]


def _choose(run: Path, config: TrainingConfig, kept: dict[int, Any], dataset: Dataset | None) -> _Chosen | None:
    """Returns the generator that does best on the validation images: one that was kept, or the average of the last
    half of them. None where none was kept.
    """
    step = best_step(run)
    if step is None:
        return None
    distances = {row["step"]: row[CRITERION] for row in evaluations(run)}
    average = average_of_run(run, config) if dataset is not None else None
    if average and dataset:
        distance = Validation(dataset).figures(average.generator)[CRITERION]
        if distance < distances[step]:
            step = average.steps[-1]
            of = {"average_of": len(average.steps), "from_step": average.steps[0]}
            return _Chosen(average.generator, step, _facts(config, step, distance) | of)
    return _Chosen(kept[step], step, _facts(config, step, distances[step]))


def _facts(config: TrainingConfig, step: int, distance: float) -> dict[str, Any]:
    return {"step": step, "epoch": round(config.epochs_at(step), 2), "by": CRITERION, "validation": round(distance, 4)}


def _story(run: Path, config: TrainingConfig, classifiers: Path, chosen: Mapping[str, Any] | None) -> bytes | None:
    """Returns the run's story as it is served; None if the run has no pictures."""
    try:
        classify = newest_classifier(classifiers).probabilities
    except ClassifierError:
        classify = None  # Then the stages have no names.
    document = story.build_story(run, config, classify, chosen)
    return story.encode(document) if document["milestones"] else None


def _newest(base: Path) -> Path:
    found = versions(base / CLASSIFIER)
    if not found:
        raise ExportError(
            f"{base / CLASSIFIER} holds no version of a classifier: digitgan train-classifier --models {base} makes one"
        )
    return base / CLASSIFIER / str(found[-1])
