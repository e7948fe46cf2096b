"""From trained networks to model versions that a model server can load: saved, checked, then published by a rename."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving import apis, server_config
from serving.contract import (
    BATCH_SIZES,
    CLASSIFIER,
    CONFIDENCES,
    CURATED,
    DIGITS,
    DISCRIMINATOR,
    FEATURES,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGES,
    INDEX_PAGE,
    LOGITS,
    MODELS,
    PIXEL_SCALE,
    PROBABILITIES,
    SEED_INDEX,
    SIGNATURE,
    STORY,
    STORY_BYTES,
    STORY_PAGE,
    WARMUP_REQUESTS,
)
from serving.model_card import CardError, read_card, verify, write_card
from serving.noise import noise_from_seeds
from serving.storage import find_versions
from serving.tensors import to_proto
from training import seed_index
from training import story as run_story
from training.calibration import Calibration
from training.classifier import features_and_probabilities
from training.devices import prepare_tensorflow
from training.inference import InferenceModule, inference_module
from training.seed_index import SeedIndex

CHECKED_SIZES: Final = (1, 2, 3, 7, 64, 256)
PIXEL_TOLERANCE: Final = 0.5 + 0.01
"""How far a pixel may lie from the network's unrounded value: its own rounding, and float32's noise at 255."""
LOGIT_TOLERANCE: Final = 1e-3
FEATURE_TOLERANCE: Final = 1e-3
"""For the classifier's features and probabilities alike."""


class ExportError(RuntimeError):
    """What was saved doesn't compute what the network computes, so nothing was published."""


@dataclass(frozen=True)
class Labels:
    """What is published with a generator so that its digits can be asked for by what they show.

    Attributes:
        classifier: version directory of the classifier that reads them; it is published with the others.
        seeds: how many seeds to look at for the index.
    """

    classifier: Path
    seeds: int


def export(
    networks: Mapping[str, Any],
    base: Path,
    facts: Mapping[str, Any],
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
    *,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
    labels: Labels | None = None,
    story: bytes | None = None,
) -> int:
    """Publishes one new version of each network, all under the same number.

    Each version directory is written under a name that no model server looks at, loaded back, compared with the
    network on several batch sizes, and renamed into place once all of them have passed: the generator last, so that
    whoever sees its index finds the models that it speaks of. TensorFlow Serving's configuration files are written
    beside the models. TensorFlow computes without TF32 from here on (:func:`training.devices.prepare_tensorflow`):
    under it, every comparison would fail.

    Args:
        networks: model name -> trained Keras network in float32.
        base: the model base directories' parent.
        facts: what the model cards tell about the training.
        mount_point: ``base`` as the model server will see it, for models.config.
        details: model name -> what that model's card tells besides.
        calibration: how the discriminator's logit becomes a probability; None: by the sigmoid alone.
        labels: publish a classifier and the generator's seed index too; ``networks`` must hold both networks then.
        story: how the generator learned, to be served with it (:func:`training.story.encode`).

    Returns:
        The version.

    Raises:
        ExportError: a saved graph differs from its network by more than rounding, or ``labels`` names no classifier.
    """
    prepare_tensorflow()
    version = 1 + max((number for name in networks for number in versions(base / name)), default=0)
    staged: list[tuple[Path, Path]] = []

    def stage(name: str, number: int) -> Path:
        staging = base / name / f".{number}.{os.getpid()}.partial"
        staged.append((staging, base / name / str(number)))
        return staging

    try:
        classifier = _stage_classifier(labels.classifier, base / CLASSIFIER, stage) if labels else None
        modules = {name: inference_module(name, network, calibration) for name, network in networks.items()}
        told: dict[str, dict[str, Any]] = {name: dict((details or {}).get(name, {})) for name in networks}
        index = None
        if labels:
            index = _look_at_seeds(modules, labels)
            modules[GENERATOR].graphs[SEED_INDEX] = index.graph()
            told[GENERATOR][SEED_INDEX] = {**index.facts(), CLASSIFIER: classifier}
        if story:
            modules[GENERATOR].graphs[STORY] = run_story.graph(story)
            told[GENERATOR][STORY] = run_story.facts(story)
        for name in sorted(networks, key=lambda name: name == GENERATOR):
            staging = stage(name, version)
            _save(name, modules[name], staging)
            difference = _check(name, networks[name], calibration, staging)
            if index and name == GENERATOR:
                _check_index(index, staging)
            if story and name == GENERATOR:
                _check_story(story, staging)
            write_card(
                staging,
                {
                    "model": name,
                    "version": version,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    **facts,
                    **told[name],
                    "export": {"tensorflow": tf.__version__, "greatest_difference_from_network": difference},
                },
            )
        for staging, final in staged:
            staging.rename(final)
    finally:
        for staging, _ in staged:
            shutil.rmtree(staging, ignore_errors=True)
    hosted = [name for name in MODELS if versions(base / name)]
    server_config.write_configs(base, hosted, mount_point, os.cpu_count() or 1)
    return version


def _stage_classifier(source: Path, target: Path, stage: Callable[[str, int], Path]) -> int:
    """Stages a copy of a classifier, unless the newest one that is published has the same files.

    Returns:
        The version that it has, or will have.
    """
    try:
        verify(source)
        card = read_card(source)
    except CardError as error:
        raise ExportError(f"the classifier can't be published: {error}") from error
    newest = max(versions(target), default=0)
    if newest:
        with suppress(CardError):
            if read_card(target / str(newest)).get("files") == card["files"]:
                return newest
    staging = stage(CLASSIFIER, newest + 1)
    for name in card["files"]:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, staging / name)
    write_card(staging, {**{key: value for key, value in card.items() if key != "files"}, "version": newest + 1})
    return newest + 1


def _look_at_seeds(modules: Mapping[str, InferenceModule], labels: Labels) -> SeedIndex:
    generate, score = (modules[name].graphs[SIGNATURE] for name in (GENERATOR, DISCRIMINATOR))
    saved = tf.saved_model.load(str(labels.classifier))
    classify = saved.signatures[SIGNATURE]
    return seed_index.build(
        lambda noise: np.asarray(generate(tf.constant(noise))[IMAGES]),
        lambda images: np.asarray(classify(tf.constant(images))[PROBABILITIES]),
        lambda images: np.asarray(score(tf.constant(images))[LOGITS]),
        labels.seeds,
    )


def versions(model_base: Path) -> list[int]:
    """The version numbers of a model base directory, ascending."""
    if not model_base.is_dir():
        return []
    return sorted(find_versions(model_base))


def _save(name: str, module: InferenceModule, directory: Path) -> None:
    tf.saved_model.save(module, str(directory), signatures=dict(module.graphs))
    _write_warm_up_requests(name, directory)


def _write_warm_up_requests(name: str, directory: Path) -> None:
    records = directory / WARMUP_REQUESTS
    records.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(records)) as writer:
        for size in BATCH_SIZES:
            log = apis.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = SIGNATURE
            request.inputs[MODELS[name].input.name].CopyFrom(to_proto(_example_inputs(name, size)))
            writer.write(log.SerializeToString())


def _example_inputs(name: str, rows: int) -> NDArray[Any]:
    if name == GENERATOR:
        return noise_from_seeds(range(rows))
    return np.random.default_rng(rows).integers(0, 256, (rows, *IMAGE_SHAPE), np.uint8)


def _check(name: str, network: Any, calibration: Calibration | None, directory: Path) -> float:
    """Loads the saved model and compares it with the network.

    Returns the greatest difference, in pixel levels, logits, probabilities or features.
    """
    saved = tf.saved_model.load(str(directory))
    served = saved.signatures[SIGNATURE]
    greatest = 0.0
    for size in CHECKED_SIZES:
        inputs = _example_inputs(name, size)
        outputs = {key: value.numpy() for key, value in served(tf.constant(inputs)).items()}
        if name == GENERATOR:
            expected = np.asarray(network(inputs, training=False), np.float64) * PIXEL_SCALE + PIXEL_SCALE
            difference, tolerance = np.abs(outputs[IMAGES] - expected).max(), PIXEL_TOLERANCE
        elif name == CLASSIFIER:
            features, probabilities = features_and_probabilities(network, inputs)
            found = saved.signatures[FEATURES](tf.constant(inputs))[FEATURES].numpy()
            difference = max(np.abs(outputs[PROBABILITIES] - probabilities).max(), np.abs(found - features).max())
            tolerance = FEATURE_TOLERANCE
        else:
            expected = np.asarray(network(inputs / np.float32(PIXEL_SCALE) - 1, training=False))[:, 0]
            believed = (calibration or Calibration()).probabilities(outputs[LOGITS])
            difference = max(np.abs(outputs[LOGITS] - expected).max(), np.abs(outputs[PROBABILITIES] - believed).max())
            tolerance = LOGIT_TOLERANCE
        if not difference <= tolerance:  # NaN must fail too.
            raise ExportError(
                f"{name}: at batch size {size} the saved graph differs from the network by {difference:.3g}, more "
                f"than {tolerance:.3g}; nothing was published"
            )
        greatest = max(greatest, float(difference))
    return greatest


def _check_index(index: SeedIndex, directory: Path) -> None:
    """Loads the saved generator and compares the pages that it gives with the index."""
    pages = np.arange(-(-len(index.digits) // INDEX_PAGE))
    answer = tf.saved_model.load(str(directory)).signatures[SEED_INDEX](tf.constant(pages, tf.int64))
    tables: dict[str, NDArray[Any]] = {
        DIGITS: index.digits,
        CONFIDENCES: index.confidences,
        LOGITS: index.logits,
        CURATED: index.curated,
    }
    for name, table in tables.items():
        if not np.array_equal(answer[name].numpy().ravel()[: len(table)], table):
            raise ExportError(f"{GENERATOR}: {SEED_INDEX} gives other {name} than were found; nothing was published")


def _check_story(story: bytes, directory: Path) -> None:
    """Loads the saved generator and compares the story that it gives with the one it was given."""
    pages = np.arange(-(-len(story) // STORY_PAGE))
    answer = tf.saved_model.load(str(directory)).signatures[STORY](tf.constant(pages, tf.int64))
    if answer[STORY].numpy().tobytes()[: int(answer[STORY_BYTES][0])] != story:
        raise ExportError(f"{GENERATOR}: {STORY} gives another story than the run's; nothing was published")
