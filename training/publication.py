"""From a run to what is served: the chosen generator, its seed index and its story, the detector, the classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from serving import server_config
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.pretrained import MODELS_DIR
from training import job, served_story
from training.config import ConfigError, TrainingConfig
from training.data import Dataset
from training.detector import DetectorConfig, detector_of_run
from training.evaluation.features import Judge, JudgeError
from training.export import ExportError, Labels, export, versions
from training.seed_index import SEEDS
from training.selection import CRITERION, chosen_step, kept_generators
from training.story import tell

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

    The generator is the one that the run chose on the validation images, or the last one where it chose none.

    Args:
        run: the run directory; the detector is kept there for the next time.
        config: the run's.
        trainer: its networks, as they stood last (training.step.Trainer).
        dataset: the run's images; needed to train a detector only.
        publication: where and how.

    Returns:
        The version.

    Raises:
        ConfigError: the detector's images are missing, or not those of the run.
        ExportError: nothing was published; the message tells why.
    """
    kept = kept_generators(run)
    step = chosen_step(run)
    generator = trainer.averaged_generator() if step is None else kept.pop(step)
    discriminator = trainer.last_discriminator()
    details: dict[str, Mapping[str, Any]] = {}
    if step is not None:
        details[GENERATOR] = {"chosen": {"step": step, "epoch": round(config.epochs_at(step), 2), "by": CRITERION}}
    calibration = None
    if publication.detector:
        if dataset is None or dataset.fingerprint() != config.data_sha256:
            raise ConfigError("data: the detector needs the training images that this run began with")
        steps = publication.detector_steps or min(DetectorConfig.steps, trainer.step)
        earlier = [kept[step] for step in sorted(kept)[-EARLIER:]]
        detector = detector_of_run(
            run, discriminator, [generator, *earlier], dataset, DetectorConfig(steps=steps, seed=config.seed)
        )
        discriminator, calibration = detector.network, detector.calibration
        details[DISCRIMINATOR] = {"detector": detector.facts}
    labels = Labels(_newest(publication.classifiers), publication.index_seeds) if publication.index_seeds else None
    return export(
        {DISCRIMINATOR: discriminator, GENERATOR: generator},
        publication.base,
        job.card_facts(config, run, trainer.step),
        publication.mount_point,
        details=details,
        calibration=calibration,
        labels=labels,
        story=_story(run, config, publication.classifiers, step),
    )


def _story(run: Path, config: TrainingConfig, classifiers: Path, chosen: int | None) -> bytes | None:
    """Returns the run's story as it is served; None where the run has no pictures."""
    try:
        judge: Judge | None = Judge.newest(classifiers)
    except JudgeError:
        judge = None  # Then the stages stay without names.
    story = tell(run, (lambda digits: judge.look(digits)[1]) if judge else None)
    return served_story.document(run, config, story, chosen) if story.milestones else None


def _newest(base: Path) -> Path:
    found = versions(base / CLASSIFIER)
    if not found:
        raise ExportError(
            f"{base / CLASSIFIER} holds no version of a classifier: digitgan train-classifier --models {base} makes one"
        )
    return base / CLASSIFIER / str(found[-1])
