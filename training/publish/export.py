"""From trained networks to model versions that a model server can load: saved, compared, then published by a rename."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving import apis
from serving.contract import (
    BATCH_SIZES,
    CLASSIFIER,
    DISCRIMINATOR,
    FEATURES,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGES,
    INDEXED_SEEDS,
    LOGITS,
    MODELS,
    PIXEL_SCALE,
    PROBABILITIES,
    SEED_INDEX,
    SIGNATURE,
    STORY,
    WARMUP_REQUESTS,
)
from serving.errors import UserError
from serving.noise import noise_from_seeds
from serving.storage import find_versions
from serving.tf_serving import server_config
from serving.tf_serving.tensors import to_proto
from serving.versions.model_card import CardError, read_card, verify, write_card
from training.classifier import features_and_probabilities
from training.devices import prepare_tensorflow
from training.evaluation.calibration import Calibration
from training.pixels import to_unit
from training.publish import seed_index
from training.publish.inference import InferenceModule, inference_module
from training.publish.pages import paged, story_graph, story_table
from training.publish.seed_index import SEEDS
from training.report import story as run_story

CHECKED_SIZES: Final = (1, 2, 3, 7, 64, 256)
PIXEL_TOLERANCE: Final = 0.5 + 0.01
"""How far a pixel may lie from the network's unrounded value: its own rounding, and float32's noise at 255."""
TOLERANCE: Final = 1e-3
"""The same for logits, probabilities and features."""


class ExportError(UserError):
    """What was saved doesn't compute what the network computes, so nothing was published."""


@dataclass(frozen=True)
class Reference:
    """What a saved signature has to compute for some inputs, and how far an output may be from it."""

    outputs: Callable[[Any], Mapping[str, NDArray[Any]]]
    inputs: Sequence[NDArray[Any]]
    tolerance: float


@dataclass(frozen=True)
class Published:
    """A model on its way to be published; ``facts`` is what the model card says of this model alone."""

    module: InferenceModule
    references: dict[str, Reference]
    facts: dict[str, Any] = field(default_factory=dict)


def export(
    networks: Mapping[str, Any],
    base: Path,
    facts: Mapping[str, Any],
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
    *,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
    classifier: Path | None = None,
    index_seeds: int = SEEDS,
    story: bytes | None = None,
) -> int:
    """Publishes one new version of each network, all under the same number.

    Each version directory is written under a name that no model server looks at, loaded back, compared with the
    network on several batch sizes, and renamed into place once all of them have passed. The generator is renamed last,
    so that a reader of its seed index finds the models that the index speaks of. TensorFlow Serving's configuration
    files are written beside the models. TensorFlow computes without TF32 from here on
    (:func:`training.devices.prepare_tensorflow`): under it, every comparison would fail.

    Args:
        networks: model name -> trained Keras network in float32.
        base: the model base directories' parent.
        facts: what all model cards say about the training.
        mount_point: ``base`` as the model server will see it, for models.config.
        details: model name -> what that model's card says besides.
        calibration: how the discriminator's logit becomes a probability; None: by the sigmoid alone.
        classifier: a version directory; it is published too, with an index of the seeds that it labels. ``networks``
            must hold both networks then.
        index_seeds: seeds in the index.
        story: how the generator learned, to be served with it (:func:`training.report.story.encode`).

    Returns:
        The version.

    Raises:
        ExportError: a saved graph differs from its network by more than rounding, or there is no ``classifier``.
    """
    prepare_tensorflow()
    version = 1 + max((number for name in networks for number in versions(base / name)), default=0)
    staged: list[tuple[Path, Path]] = []

    def stage(name: str, number: int) -> Path:
        staging = base / name / f".{number}.{os.getpid()}.partial"
        staged.append((staging, base / name / str(number)))
        return staging

    try:
        models = {
            name: Published(
                inference_module(name, network, calibration),
                _references(name, network, calibration or Calibration()),
                dict((details or {}).get(name, {})),
            )
            for name, network in networks.items()
        }
        if classifier:
            number = _stage_classifier(classifier, base / CLASSIFIER, stage)
            _add_seed_index(models, classifier, number, index_seeds)
        if story:
            _add_story(models[GENERATOR], story)
        for name in sorted(models, key=lambda name: name == GENERATOR):
            staging = stage(name, version)
            tf.saved_model.save(models[name].module, str(staging), signatures=dict(models[name].module.graphs))
            _write_warm_up_requests(name, staging)
            difference = _compare(name, models[name].references, staging)
            card = {
                "model": name,
                "version": version,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                **facts,
                **models[name].facts,
                "export": {"tensorflow": tf.__version__, "greatest_difference_from_network": difference},
            }
            write_card(staging, card)
        for staging, final in staged:
            staging.rename(final)
    finally:
        for staging, _ in staged:
            shutil.rmtree(staging, ignore_errors=True)
    hosted = [name for name in MODELS if versions(base / name)]
    server_config.write_configs(base, hosted, mount_point, os.cpu_count() or 1)
    return version


def _references(name: str, network: Any, calibration: Calibration) -> dict[str, Reference]:
    """Returns what the signatures of a network have to compute, by Keras's own way."""
    inputs = [_example_inputs(name, size) for size in CHECKED_SIZES]

    def pixels(noise: Any) -> Mapping[str, NDArray[Any]]:
        return {IMAGES: np.asarray(network(noise, training=False), np.float64) * PIXEL_SCALE + PIXEL_SCALE}

    def scores(images: Any) -> Mapping[str, NDArray[Any]]:
        logits = np.asarray(network(to_unit(images), training=False))[:, 0]
        return {LOGITS: logits, PROBABILITIES: calibration.probabilities(logits)}

    def classes(images: Any) -> Mapping[str, NDArray[Any]]:
        return {PROBABILITIES: features_and_probabilities(network, images)[1]}

    def features(images: Any) -> Mapping[str, NDArray[Any]]:
        return {FEATURES: features_and_probabilities(network, images)[0]}

    if name == GENERATOR:
        return {SIGNATURE: Reference(pixels, inputs, PIXEL_TOLERANCE)}
    if name == DISCRIMINATOR:
        return {SIGNATURE: Reference(scores, inputs, TOLERANCE)}
    return {SIGNATURE: Reference(classes, inputs, TOLERANCE), FEATURES: Reference(features, inputs, TOLERANCE)}


def _add_seed_index(models: Mapping[str, Published], classifier: Path, number: int, seeds: int) -> None:
    """Labels the digits of the first seeds, and adds the index of them to the generator."""
    generate, score = (models[name].module.graphs[SIGNATURE] for name in (GENERATOR, DISCRIMINATOR))
    saved = tf.saved_model.load(str(classifier))
    classify = saved.signatures[SIGNATURE]
    index = seed_index.build(
        lambda noise: np.asarray(generate(tf.constant(noise))[IMAGES]),
        lambda images: np.asarray(classify(tf.constant(images))[PROBABILITIES]),
        lambda images: np.asarray(score(tf.constant(images))[LOGITS]),
        seeds,
    )
    generator, tables = models[GENERATOR], index.tables()
    generator.module.graphs[SEED_INDEX] = paged(tables, INDEXED_SEEDS, seeds)
    generator.references[SEED_INDEX] = _all_pages(tables)
    generator.facts[SEED_INDEX] = {**index.facts(), CLASSIFIER: number}


def _add_story(generator: Published, story: bytes) -> None:
    generator.module.graphs[STORY] = story_graph(story)
    generator.references[STORY] = _all_pages(story_table(story))
    generator.facts[STORY] = run_story.facts(story)


def _all_pages(tables: Mapping[str, NDArray[Any]]) -> Reference:
    pages = len(next(iter(tables.values())))
    return Reference(lambda _: tables, [np.arange(pages)], 0.0)


def _compare(name: str, references: Mapping[str, Reference], directory: Path) -> float:
    """Loads a saved model and compares each signature with its reference.

    Returns the greatest difference, in pixel levels, logits, probabilities or features.
    """
    saved = tf.saved_model.load(str(directory))
    greatest = 0.0
    for signature, reference in references.items():
        for inputs in reference.inputs:
            outputs = saved.signatures[signature](tf.constant(inputs))
            for output, expected in reference.outputs(inputs).items():
                difference = float(np.abs(np.subtract(outputs[output].numpy(), expected, dtype=np.float64)).max())
                if not difference <= reference.tolerance:  # NaN must fail too.
                    raise ExportError(
                        f"{name}: at batch size {len(inputs)}, {output} of the saved graph ({signature}) differs from "
                        f"the network by {difference:.3g}, more than {reference.tolerance:.3g}; nothing was published"
                    )
                greatest = max(greatest, difference)
    return greatest


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


def versions(model_base: Path) -> list[int]:
    """The version numbers of a model base directory, ascending."""
    return sorted(find_versions(model_base)) if model_base.is_dir() else []


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
