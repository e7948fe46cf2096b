"""From a run to what is served: the chosen generator, its seed index and its story, the detector, the classifier."""

from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Final

import tensorflow as tf

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.storage import newest_version
from serving.tf_serving import server_config
from serving.versions.model_card import find_card
from training import job
from training.bar import announce
from training.classifier import ClassifierConfig, classifier_facts, train_classifier
from training.config import OWN, PACKAGED, TrainingConfig
from training.data import Dataset
from training.detector import DetectorConfig, detector_of_run
from training.devices import describe
from training.evaluation.calibration import Calibration
from training.evaluation.classifier import EvaluationClassifier, newest_classifier
from training.evaluation.source import MODELS
from training.publish.export import export
from training.publish.seed_index import SEEDS
from training.report import story
from training.run.metrics import METRICS_FILE, read_log
from training.run.selection import Validation, choose, kept_generators

EARLIER: Final = 6
"""How many earlier generators, the last ones, the detector learns from."""


def publish_classifier(
    config: ClassifierConfig,
    dataset: Dataset,
    base: Path,
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
) -> tuple[int, dict[str, Any]]:
    """Trains a classifier on a data set, and publishes it. Returns its version and what its card says of it."""
    base.mkdir(parents=True, exist_ok=True)  # It fails before the training.
    network = train_classifier(config, dataset)
    facts = classifier_facts(config, dataset, network)
    return export({CLASSIFIER: network}, base, facts, mount_point), facts


def classifier_of_run(run: Path, config: TrainingConfig, dataset: Dataset) -> EvaluationClassifier:
    """Returns the classifier that measures and labels a run's digits. Trains the run's own first if it is missing."""
    base = job.classifiers_of(run, config)
    if config.classifier == OWN and job.learned_from(base) != config.data_sha256:
        publish_classifier(ClassifierConfig(seed=config.seed, mixed_precision=config.mixed_precision), dataset, base)
    return newest_classifier(base)


def publish_run(
    run: Path,
    config: TrainingConfig,
    trainer: Any,
    dataset: Dataset,
    base: Path,
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
    index_seeds: int | None = None,
    classifiers: Path | None = None,
) -> int:
    """Publishes a run's models as one new version, and returns its number. Raises UserError if it publishes nothing.

    The generator is the one that does best on the validation images, of those that the run measured and the average of
    the last half of them; or the last one of ``trainer``, if it measured none. If it is that of the run's newest
    version, its card keeps the evaluation. ``classifiers`` is the base directory of the classifier that labels the
    digits and is published, by default the run's.
    """
    classifier = classifier_of_run(run, config, dataset)
    labelling = newest_classifier(classifiers) if classifiers else classifier
    announce("Choosing the generator")
    kept = kept_generators(run)
    if kept:
        generator, name, chosen = choose(run, config, kept, Validation(dataset, classifier))
    else:
        generator, name, chosen = trainer.averaged_generator(), f"last-{trainer.step}", None
    steps = min(DetectorConfig.steps, trainer.step)
    earlier = [each for each in kept.values() if each is not generator][-EARLIER:]
    discriminator, detector_facts = detector_of_run(
        run,
        f"{name}-{steps}",
        trainer.discriminator,
        [generator, *earlier],
        dataset,
        DetectorConfig(steps=steps, seed=config.seed, xla=config.xla),
    )
    details: dict[str, dict[str, Any]] = {DISCRIMINATOR: {"detector": detector_facts}}
    if chosen:
        details[GENERATOR] = {"chosen": chosen}
        card = find_card(newest_version(run / MODELS / GENERATOR))
        if "evaluation" in card and card.get("chosen") == chosen:
            details[GENERATOR]["evaluation"] = card["evaluation"]
    document = story.build_story(run, config, classifier.probabilities, chosen)
    announce("Saving the models and comparing each with its network")
    return export(
        {DISCRIMINATOR: discriminator, GENERATOR: generator},
        base,
        _card_facts(config, run, trainer.step),
        mount_point,
        details=details,
        calibration=Calibration(**detector_facts["calibration"]),
        classifier=labelling.version_dir,
        index_seeds=index_seeds or SEEDS,
        story=story.encode(document) if document["milestones"] else None,
    )


def _card_facts(config: TrainingConfig, run: Path, step: int) -> dict[str, Any]:
    """What the model cards say about a run: how it was trained, on what, and the last line of its log."""
    rows = read_log(run / METRICS_FILE)
    return {
        "training": {
            **asdict(config),
            "data": "MNIST by Keras's loader" if config.data == "keras" else Path(config.data).name,
            "classifier": config.classifier if config.classifier in (PACKAGED, OWN) else Path(config.classifier).name,
            "steps": step,
            "epochs": round(config.epochs_at(step), 2),
            "tensorflow": tf.__version__,
            "device": describe(),
        },
        "last_interval": rows[-1] if rows else None,
    }
